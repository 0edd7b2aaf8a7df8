"""The kernel names no plugin, no runtime and no engine; what the wire itself dictates stands in one module."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

import shoal

KERNEL = Path(shoal.__file__).parent
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["shoal.plugins"]
ORDINARY = {"client", "commands", "direct", "renew", "idle", "preview", "gateway", "agent", "sqlite", "local"}
"""Words in plugins' names that are words of the API or of the language."""
FAMILIES = {"runtime", "ingress", "auth", "policy", "intent", "timeout", "store"}
PLUGINS = {part for name in POINTS for part in name.split("_")} - FAMILIES - ORDINARY
ENGINES = {"docker", "podman", "kubernetes", "k8s", "kubectl", "execd", "egress", "bubblewrap", "batchsandbox"}
WORDS = re.compile(rf"(?i)({'|'.join(sorted({*PLUGINS, *ENGINES, *POINTS} - ORDINARY))}|ingress\.mode)")
CITED = re.compile(r"docs/wire/\w+\.md")

EXCEPTIONS = {
    "models/opensandbox.py": "what the wire dictates: all of it stands here",
    "web/descriptions/create.py": "texts of /openapi.json: what a field is on an engine",
    "web/descriptions/resources.py": "the same",
    "web/resources/network_policy.py": "the summary of an operation in /openapi.json",
    "models/requests.py": "a field of NetworkPolicy is called egress",
    "models/create.py": "the variables of opensandbox.py",
    "models/rules.py": "the same field, and the variables of opensandbox.py",
    "lifecycle/admission.py": "the variables of opensandbox.py",
    "config/settings.py": "keys of opensandbox-server's configuration file: runtime.execd_image",
    "config/retired.py": "keys that its older releases had",
    "plugin/hookspecs.py": "the key runtime.execd_image",
    "plugin/discovery.py": "its docstring says which store is the default",
    "plugin/context.py": "the same key",
    "plugin/interfaces/agent.py": "the same key, and the file that the wire calls execd",
    "cli/main.py": "names of the example files that come with the package",
    "web/schemes.py": "OpenAPI's own word apiKey",
    "kit/quantities.py": "the grammar of quantities is Kubernetes's",
    "kit/__init__.py": "the same",
}
"""File of the kernel → why it may name what the others may not."""


def named(path: Path) -> list[str]:
    lines = CITED.sub("", path.read_text(encoding="utf-8")).splitlines()
    return [f"{number}: {found[0]}" for number, line in enumerate(lines, 1) if (found := WORDS.search(line))]


FILES = sorted(KERNEL.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(KERNEL).as_posix())
def test_no_plugin_and_no_engine_is_named(path: Path) -> None:
    where = path.relative_to(KERNEL).as_posix()
    assert (where in EXCEPTIONS) == bool(named(path)), named(path)
