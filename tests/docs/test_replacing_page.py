"""docs/replacing-opensandbox-server.md names every key that has no effect here, and every example and command."""

from __future__ import annotations

import pytest
from tests.docs.pages import ROOT

from shoal.cli.main import EXAMPLES
from shoal.config import retired
from shoal.config.sections import KERNEL_SECTIONS
from shoal.plugin.discovery import discover

PAGE = (ROOT / "docs" / "replacing-opensandbox-server.md").read_text(encoding="utf-8")


def without_effect() -> list[str]:
    """As the page writes them: ``table.key``, and ``[section]``."""
    sections = [(section.path, section.retired) for section in KERNEL_SECTIONS]
    sections += [(section.name, section.retired) for plugin in discover({}).values() for section in plugin.sections()]
    keys = [f"{path}.{key}" for path, given_up in sections for key in given_up]
    return [*keys, *(f"[{name}]" for name in (*retired.IGNORED_SECTIONS, *retired.REFUSED_SECTIONS))]


@pytest.mark.parametrize("name", without_effect())
def test_every_key_without_effect_is_named(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_named(name: str) -> None:
    assert name in PAGE
