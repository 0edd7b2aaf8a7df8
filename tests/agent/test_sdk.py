"""The SDK from PyPI, unmodified, straight at the agent: sync and async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from opensandbox.adapters.command_adapter import CommandsAdapter
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.execd import Execution, ExecutionHandlers, OutputMessage, RunCommandOpts
from opensandbox.models.execd_sync import ExecutionHandlersSync
from opensandbox.models.sandboxes import SandboxEndpoint
from opensandbox.sync.adapters.command_adapter import CommandsAdapterSync
from opensandbox.sync.adapters.health_adapter import HealthAdapterSync
from tests.agent.program import AgentProcess, StartAgent

from shoal_agent.code.jupyter import server as jupyter

TOKEN = "a token"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxEndpoint]:
    home = tmp_path_factory.mktemp("sdk") / "agent"
    home.mkdir()
    agent = AgentProcess(home, env={"EXECD_ACCESS_TOKEN": TOKEN})
    yield SandboxEndpoint(endpoint=f"127.0.0.1:{agent.port}", headers={"X-EXECD-ACCESS-TOKEN": TOKEN})
    agent.stop()


@pytest.fixture
def commands(endpoint: SandboxEndpoint) -> Iterator[CommandsAdapterSync]:
    config = ConnectionConfigSync(protocol="http").with_transport_if_missing()
    yield CommandsAdapterSync(config, endpoint)
    config.close_transport_if_owned()


def lines(execution: Execution) -> list[str]:
    return [message.text for message in execution.logs.stdout]


def test_it_is_healthy(endpoint: SandboxEndpoint) -> None:
    config = ConnectionConfigSync(protocol="http").with_transport_if_missing()
    assert HealthAdapterSync(config, endpoint).ping("any")
    config.close_transport_if_owned()


def test_a_run(commands: CommandsAdapterSync) -> None:
    seen: list[str] = []

    def take(message: OutputMessage) -> None:
        seen.append(message.text)

    done = commands.run("echo é; echo err >&2; exit 3", handlers=ExecutionHandlersSync(on_stdout=take))
    assert seen == lines(done) == ["é"]
    assert [message.text for message in done.logs.stderr] == ["err"]
    assert done.exit_code == 3
    assert done.error is not None
    assert (done.error.name, done.error.value) == ("CommandExecError", "3")
    assert commands.run("true").exit_code == 0


def test_options(commands: CommandsAdapterSync) -> None:
    opts = RunCommandOpts(working_directory="/usr", envs={"A": "b c"}, timeout=timedelta(seconds=30))
    assert lines(commands.run('pwd; echo "$A"', opts=opts)) == ["/usr", "b c"]
    late = commands.run("sleep 300", opts=RunCommandOpts(timeout=timedelta(milliseconds=200)))
    assert late.exit_code == -1
    with pytest.raises(SandboxApiException, match="/no/such does not exist"):
        commands.run("pwd", opts=RunCommandOpts(working_directory="/no/such"))


def test_background(commands: CommandsAdapterSync) -> None:
    started = commands.run("echo one; echo two >&2; exit 4", opts=RunCommandOpts(background=True))
    assert started.id is not None
    assert started.exit_code is None
    while (status := commands.get_command_status(started.id)).running:
        pass
    assert status.exit_code == 4
    logs = commands.get_background_command_logs(started.id)
    assert (logs.content, logs.cursor) == ("one\ntwo\n", 8)
    assert commands.get_background_command_logs(started.id, cursor=4).content == "two\n"


def test_an_interrupt(endpoint: SandboxEndpoint, commands: CommandsAdapterSync) -> None:
    identifier: list[str] = []
    begun = threading.Event()
    results: list[Execution] = []

    def begin() -> None:
        config = ConnectionConfigSync(protocol="http").with_transport_if_missing()
        handlers = ExecutionHandlersSync(
            on_init=lambda init: identifier.append(init.id), on_stdout=lambda message: begun.set()
        )
        results.append(CommandsAdapterSync(config, endpoint).run("echo begun; sleep 300", handlers=handlers))
        config.close_transport_if_owned()

    thread = threading.Thread(target=begin)
    thread.start()
    assert begun.wait(20)
    commands.interrupt(identifier[0])
    thread.join(20)
    assert results[0].exit_code == -1
    with pytest.raises(SandboxApiException):
        commands.interrupt("nope")


def test_a_session(commands: CommandsAdapterSync) -> None:
    session = commands.create_session(working_directory="/tmp")
    assert lines(commands.run_in_session(session, "pwd; export A=1")) == ["/tmp"]
    assert lines(commands.run_in_session(session, "echo $A; pwd", working_directory="/usr")) == ["1", "/usr"]
    assert commands.run_in_session(session, "exit 7").exit_code == 7
    commands.delete_session(session)
    with pytest.raises(SandboxApiException):
        commands.run_in_session(session, "true")


@pytest.mark.parametrize("value", ["plain", "it's", "two\nlines", "$HOME", "é\u2028"])
def test_set_env(commands: CommandsAdapterSync, value: str) -> None:
    commands.set_env("SET", value)
    assert "\n".join(lines(commands.run('printf %s "$SET"'))) == value


async def test_the_async_sdk_sixteen_at_once(endpoint: SandboxEndpoint) -> None:
    config = ConnectionConfig(protocol="http").with_transport_if_missing()
    commands = CommandsAdapter(config, endpoint)
    seen: list[str] = []

    async def take(message: OutputMessage) -> None:
        seen.append(message.text)

    async def one(number: int) -> int | None:
        return (await commands.run(f"echo {number}", handlers=ExecutionHandlers(on_stdout=take))).exit_code

    assert set(await asyncio.gather(*(one(number) for number in range(64)))) == {0}
    assert sorted(map(int, seen)) == list(range(64))
    await config.close_transport_if_owned()


def test_a_wrong_token_is_said_plainly(start_agent: StartAgent) -> None:
    agent = start_agent(env={"EXECD_ACCESS_TOKEN": TOKEN})
    config = ConnectionConfigSync(protocol="http").with_transport_if_missing()
    commands = CommandsAdapterSync(config, SandboxEndpoint(endpoint=f"127.0.0.1:{agent.port}"))
    with pytest.raises(SandboxApiException, match="401"):
        commands.run("true")
    config.close_transport_if_owned()


def test_a_client_is_still_there_when_a_jupyter_server_has_had_its_time() -> None:
    assert timedelta(seconds=jupyter.START_TIMEOUT) < ConnectionConfigSync().request_timeout
