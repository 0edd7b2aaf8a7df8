"""The public workflow runs what a developer runs, on each Python that the package claims."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it has no types

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def job() -> Any:
    return yaml.safe_load(WORKFLOW)["jobs"]["checks"]


def test_it_covers_every_python_that_is_claimed() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    claimed = [found[1] for line in classifiers if (found := re.fullmatch(r".*:: Python :: (3\.\d+)", line))]
    assert job()["strategy"]["matrix"]["python"] == claimed


def test_it_runs_targets_that_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    run = {
        command
        for step in job()["steps"]
        for command in re.findall(r"^make ([\w-]+)$", step.get("run", ""), re.MULTILINE)
    }
    assert run == {"setup-dev", "lint", "types", "unit"}
    assert run <= targets


def test_it_names_no_package_index() -> None:
    assert re.findall(r"https?://|index-url|trusted-host", WORKFLOW) == []
