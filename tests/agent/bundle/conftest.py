"""A bundle of this interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal_agent.bundle.build import build


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "built"
    build(folder)
    return folder
