"""The pytest side of the conformance kit (entry point ``pytest11: shoal_conformance``).

Loaded by every pytest run where shoal is installed, so it imports nothing of shoal and does next to nothing: asserts
in the suite explain themselves, and a suite without its fixture says which one to write.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

pytest.register_assert_rewrite("shoal.testing.conformance")


@pytest.fixture
def conformance() -> NoReturn:
    """Overridden by the runtime's author: returns a `shoal.testing.conformance.Harness`."""
    pytest.fail(
        "RuntimeConformance needs a fixture named `conformance` that returns a shoal.testing.conformance.Harness; "
        "docs/conformance.md shows one.",
        pytrace=False,
    )
