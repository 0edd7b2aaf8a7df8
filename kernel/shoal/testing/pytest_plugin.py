"""The pytest side of the conformance kits (entry point ``pytest11: shoal_conformance``).

Loaded by every pytest run where shoal is installed, so it imports nothing of shoal and does next to nothing: asserts
in the suite explain themselves, and a suite without its fixture says which one to write.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

pytest.register_assert_rewrite("shoal.testing.conformance", "shoal.testing.store_conformance")


@pytest.fixture
def conformance() -> NoReturn:
    """Overridden by the runtime's author: returns a `shoal.testing.conformance.Harness`."""
    pytest.fail(
        "RuntimeConformance needs a fixture named `conformance` that returns a shoal.testing.conformance.Harness; "
        "docs/conformance.md shows one.",
        pytrace=False,
    )


@pytest.fixture
def store_conformance() -> NoReturn:
    """Overridden by the store's author: returns a `shoal.testing.store_conformance.StoreHarness`."""
    pytest.fail(
        "StoreConformance needs a fixture named `store_conformance` that returns a "
        "shoal.testing.store_conformance.StoreHarness; docs/writing-a-store.md shows one.",
        pytrace=False,
    )
