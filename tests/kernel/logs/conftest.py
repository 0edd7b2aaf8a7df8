"""Logging set up for one test, into files that the test reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.kernel.logs.output import Output

from shoal import logs
from shoal.web.seam import AccessEntry


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    output = Output(tmp_path)
    yield output
    logs.shutdown(60)
    structlog.contextvars.clear_contextvars()
    output.stdout.close()
    output.stderr.close()


@pytest.fixture
def access_entry() -> Callable[..., AccessEntry]:
    """One request, with changes."""

    def make(**changes: Any) -> AccessEntry:
        usual: dict[str, Any] = {
            "request_id": "0123456789abcdef",
            "client": "127.0.0.1",
            "principal": "ci",
            "method": "GET",
            "route": "/v1/sandboxes/{sandbox_id}",
            "path": "/v1/sandboxes/s1",
            "sandbox_id": "s1",
            "status": 200,
            "duration": 0.0123456,
            "complete": True,
        }
        return AccessEntry(**{**usual, **changes})

    return make
