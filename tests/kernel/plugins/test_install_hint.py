"""A missing extra is installed from where its distribution came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.lifecycle import register

from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin.install_hint import install_hint
from shoal.plugin.manager import PluginManager


class Without(MetaPathFinder):
    """Makes one package as good as not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def distribution(folder: Path, noted: str | None) -> Distribution:
    info = folder / "reef-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reef\nVersion: 1\n")
    if noted is not None:
        (info / "direct_url.json").write_text(noted)
    return PathDistribution(info)


CASES = {
    "clone": ({"url": "file:///src/reef", "dir_info": {}}, "pip install 'reef[sdk] @ file:///src/reef'"),
    "editable": (
        {"url": "file:///src/reef", "dir_info": {"editable": True}},
        "pip install --editable '/src/reef[sdk]'",
    ),
    "wheel": ({"url": "file:///dist/reef.whl", "archive_info": {}}, "pip install 'reef[sdk] @ file:///dist/reef.whl'"),
    "repository": (
        {"url": "https://example.org/r.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}, "subdirectory": "p"},
        "pip install 'reef[sdk] @ git+https://example.org/r.git@c0ffee#subdirectory=p'",
    ),
}


@pytest.mark.parametrize(("noted", "hint"), CASES.values(), ids=CASES)
def test_from_where_it_came(noted: object, hint: str, tmp_path: Path) -> None:
    assert install_hint(distribution(tmp_path, json.dumps(noted)), "sdk") == hint


@pytest.mark.parametrize("noted", [None, "", "{", "[]", '{"url": 5}'])
def test_without_a_source_no_command_is_made_up(noted: str | None, tmp_path: Path) -> None:
    assert install_hint(distribution(tmp_path, noted), "sdk") == "install reef with its extra 'sdk'"


@pytest.mark.parametrize(("runtime", "package"), [("docker", "docker"), ("kubernetes", "kubernetes")])
def test_a_built_in_runtime_without_its_sdk(runtime: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(package), *sys.meta_path])
    with pytest.raises(ConfigError) as caught:
        register(PluginManager(Loaded(raw={"runtime": {"type": runtime}})))
    line = str(caught.value)
    assert f"needs the package {package!r}, which is not installed: " in line
    assert f"[{package}]" in line or f"extra {package!r}" in line
    assert "\n" not in line
