"""What every test shares: engines that a test needs, and clean logging."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest


def _bubblewrap() -> str | None:
    return None if shutil.which("bwrap") else "bubblewrap (bwrap) is not installed"


PROBES: dict[str, Callable[[], str | None]] = {"bubblewrap": _bubblewrap}
"""Engine name → a function that says why it cannot be used, or None."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(engine): skip without that engine; fail if SHOAL_REQUIRE names it")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked ``needs(engine)`` skips where there is none, and fails where SHOAL_REQUIRE promised one."""
    required = set(filter(None, os.environ.get("SHOAL_REQUIRE", "").split(",")))
    for marker in item.iter_markers("needs"):
        for engine in marker.args:
            reason = PROBES[engine]()
            if reason is not None and engine in required:
                pytest.fail(f"SHOAL_REQUIRE names {engine}, but {reason}", pytrace=False)
            if reason is not None:
                pytest.skip(reason)
