"""Every vector of the wire, where `SHOAL_TEST_EXECD_VECTORS` names the folder of `run_vectors.py` and its cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.agent.program import USER, StartAgent

FOLDER = os.environ.get("SHOAL_TEST_EXECD_VECTORS")
SLOW = "5"
"""Times which every limit of a vector is multiplied by: machines differ."""
OTHERWISE = ("code-no-jupyter", "code-ctx-no-jupyter")
"""Vectors that want code to fail without a Jupyter server; here it runs by the image's own interpreters."""
needs_vectors = pytest.mark.skipif(FOLDER is None, reason="SHOAL_TEST_EXECD_VECTORS names no folder of vectors")


@needs_vectors
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("token", "uid"),
    [
        pytest.param(None, None, id="this-user"),
        pytest.param(None, USER, id="ordinary-user"),
        pytest.param("a token", None, id="token"),
    ],
)
def test_every_vector_passes(start_agent: StartAgent, token: str | None, uid: int | None) -> None:
    agent = start_agent(**_options(token, uid))
    command = [sys.executable, str(Path(FOLDER or "") / "run_vectors.py"), agent.base, "--slow", SLOW]
    more = [f"--daemon-port={agent.port}", *(["--token", token] if token else [])]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAIL", "ERROR"))]
    failed = [line for line in failed if line.split()[2] not in OTHERWISE]
    if failed or "same pass" not in done.stdout:
        pytest.fail("\n".join([*failed, done.stderr]), pytrace=False)


def _options(token: str | None, uid: int | None) -> dict[str, Any]:
    return {"uid": uid, "env": {"EXECD_ACCESS_TOKEN": token} if token else {}}
