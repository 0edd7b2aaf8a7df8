"""The real parts of OpenSandbox, where somebody built them beside a checkout: each is named by an environment variable.

A test that needs some says which::

    @pytest.mark.needs("real", parts=["egress", "execd"])

and reads them with `part`. The parts are programs of others: nothing here builds, fetches or replaces one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

PARTS: Final = {
    "egress": "SHOAL_TEST_REAL_EGRESS_IMAGE",
    "execd": "SHOAL_TEST_REAL_EXECD_IMAGE",
    "controllers": "SHOAL_TEST_REAL_KUBECONFIG",
    "ingress": "SHOAL_TEST_REAL_INGRESS",
}
"""Part → the variable: an image that the engine has, the kubeconfig of a cluster with the controllers, a program."""


def part(name: str) -> str:
    """What the part's variable says. Raises KeyError where it is not set."""
    return os.environ[PARTS[name]]


def missing(parts: Iterable[str]) -> str | None:
    """Why a test of these parts cannot run; None if it can."""
    absent = [PARTS[name] for name in parts if not os.environ.get(PARTS[name])]
    return f"the real part is not here: {' and '.join(absent)} not set" if absent else None
