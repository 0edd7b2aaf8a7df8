"""Tools ask for the plugins' folders in lists of their own; each list names every plugin, and nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {str(init.parent.relative_to(ROOT)) for init in ROOT.glob("plugins/*/*/__init__.py")}
FOLDERS = {str(Path(package).parent) for package in PACKAGES}
NAMES = {Path(package).name for package in PACKAGES}
HATCH = PROJECT["tool"]["hatch"]["build"]
CONTRACTS = {each["name"]: each for each in PROJECT["tool"]["importlinter"]["contracts"]}
LISTS = {
    "editable installs": (HATCH["dev-mode-dirs"], FOLDERS | {"kernel"}),
    "the wheel": (HATCH["targets"]["wheel"]["packages"], PACKAGES | {"kernel/shoal"}),
    "mypy": (PROJECT["tool"]["mypy"]["mypy_path"], FOLDERS | {"kernel"}),
    "import contracts": (PROJECT["tool"]["importlinter"]["root_packages"], NAMES | {"shoal"}),
    "kernel names no plugin": (CONTRACTS["The kernel names no plugin"]["forbidden_modules"], NAMES),
    "plugins are strangers": (CONTRACTS["Plugins are strangers to one another"]["modules"], NAMES),
    "no door": (CONTRACTS["A built-in plugin has no door that a stranger's lacks"]["source_modules"], NAMES),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_list_names_every_plugin(name: str) -> None:
    listed, wanted = LISTS[name]
    assert sorted(listed) == sorted(wanted)


def test_every_plugin_has_an_entry_point_of_its_folders_name() -> None:
    found: Iterable[tuple[str, str]] = PROJECT["project"]["entry-points"]["shoal.plugins"].items()
    assert {name: module.partition(".")[0] for name, module in found} == {
        Path(package).parent.name: Path(package).name for package in PACKAGES
    }
