"""examples/inspect_sandbox passes the checks that Inspect has for providers, on the local runtime."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.docs.pages import ROOT
from tests.support.servers import ServerProcess

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
pytestmark = pytest.mark.timeout(300)

EXAMPLE = ROOT / "examples" / "inspect_sandbox"
KEY = "inspect-test-key-0123456789"
ONE_USER = {"test_exec_as_user"}
"""It makes a second user, which a sandbox of the local runtime has not."""
NOT_AS_ROOT = {
    "test_read_file_not_allowed",
    "test_write_text_file_without_permissions",
    "test_write_binary_file_without_permissions",
}
"""That a file's mode keeps its owner out: not one who has every capability."""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("inspect"), env={"OPENSANDBOX_SERVER_API_KEY": KEY})
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture
async def environment(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("OPEN_SANDBOX_DOMAIN", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("OPEN_SANDBOX_API_KEY", KEY)
    provider = importlib.import_module("inspect_opensandbox.provider").OpenSandboxEnvironment
    config = importlib.import_module("inspect_opensandbox.config").OpenSandboxConfig(image="host", env={"GIVEN": "yes"})
    environments = await provider.sample_init("a check", config, {})
    yield environments["default"]
    await provider.sample_cleanup("a check", config, environments, interrupted=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "inspect_opensandbox"]:
        del sys.modules[name]


async def test_inspects_own_checks(environment: Any) -> None:
    checks = importlib.import_module("inspect_ai.util._sandbox.self_check")
    failed: dict[str, str] = {}
    for name in checks.__all__:
        try:
            await getattr(checks, name)(environment)
        except Exception as error:
            failed[name] = repr(error)
    status = (await environment.exec(["cat", "/proc/self/status"])).stdout
    capable = int(status.partition("CapEff:")[2].split()[0], 16) != 0
    assert failed.keys() <= ONE_USER | (NOT_AS_ROOT if capable else set()), failed
    assert len(checks.__all__) > 40


async def test_what_the_checks_leave_out(environment: Any) -> None:
    script = 'cat; printf "%s|" "$@" "$GIVEN" "$MORE"'
    done = await environment.exec(["sh", "-c", script, "sh", "a b", "*"], input="given\r\n", env={"MORE": "x"})
    assert (done.returncode, done.stdout) == (0, "given\r\na b|*|yes|x|")
    assert not (await environment.exec(["true"], cwd="/no/such")).success
    with pytest.raises(UnicodeDecodeError):
        await environment.exec(["printf", r"\377"])
    left = (await environment.exec(["ls", "/tmp"])).stdout.split()
    assert [name.partition(".")[0] for name in left] == ["inspect", "work"], left  # the former is that command's own
