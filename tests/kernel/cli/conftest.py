"""The command line in this process: a home of its own, no key, and what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernel.cli.told import Run, Told

from shoal.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory, with nothing in it or in the environment that configures a server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SANDBOX_CONFIG_PATH", "OPENSANDBOX_SERVER_API_KEY", "OPENSANDBOX_INSECURE_SERVER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("check-config", "--config", path)`` as ``shoal`` would."""

    def run(*arguments: object) -> Told:
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Told(code, *capsys.readouterr())

    return run
