"""The unmodified SDK runs commands and moves files in local sandboxes, through the server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from opensandbox import SandboxSync
from opensandbox.config import ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.execd import Execution
from opensandbox.models.filesystem import SetPermissionEntry
from tests.contract.key import KEY
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def sandbox(server: ServerProcess) -> Iterator[SandboxSync]:
    config = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", api_key=KEY)
    made = SandboxSync.create("host", ready_timeout=timedelta(seconds=90), connection_config=config)
    yield made
    made.kill()
    made.close()


def text(execution: Execution) -> str:
    return "\n".join(message.text.rstrip("\n") for message in execution.logs.stdout)


@pytest.mark.parametrize("value", ["plain", "it's", 'a "b" $HOME', "two\nlines", "é"])
def test_variables_for_later_commands(sandbox: SandboxSync, value: str) -> None:
    sandbox.commands.set_env("SET", value)
    assert text(sandbox.commands.run('printf %s "$SET"')) == value
    session = sandbox.commands.create_session()
    assert text(sandbox.commands.run_in_session(session, 'printf %s "$SET"')) == value
    sandbox.commands.delete_session(session)


def test_a_file_for_a_user_that_the_sandbox_does_not_have(sandbox: SandboxSync) -> None:
    sandbox.files.write_file("/tmp/mine", "x", mode=600)
    with pytest.raises(SandboxApiException, match="this sandbox has one user") as refused:
        sandbox.files.set_permissions([SetPermissionEntry(path="/tmp/mine", owner="nobody", mode=644)])
    assert refused.value.status_code == 403
    assert sandbox.files.get_file_info(["/tmp/mine"])["/tmp/mine"].mode == 600


def test_what_a_session_keeps(sandbox: SandboxSync) -> None:
    session = sandbox.commands.create_session(working_directory="/tmp")
    assert text(sandbox.commands.run_in_session(session, "pwd; export KEPT='a b'; cd /")) == "/tmp"
    assert text(sandbox.commands.run_in_session(session, 'echo "$KEPT"; pwd')) == "a b\n/"
    sandbox.commands.delete_session(session)
