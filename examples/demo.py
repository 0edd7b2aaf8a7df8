#!/usr/bin/env python3
"""The unmodified SDK of OpenSandbox on the local runtime, step by step: ``make demo`` runs this.

It starts a server of its own and does with one sandbox what people do with sandboxes. Nothing of it stays: the server's
files are in a temporary directory. Exits with 1 as soon as something is not as it should be.
"""

from __future__ import annotations

import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta

from shoal.cli.demo_server import DemoError, DemoServer, interpreter, is_hidden, report, run_demo, say, since

try:
    from code_interpreter.sync import CodeInterpreterSync
    from opensandbox import SandboxManagerSync, SandboxSync
    from opensandbox.config import ConnectionConfigSync
    from opensandbox.exceptions import SandboxException
    from opensandbox.models.execd import OutputMessage, RunCommandOpts
    from opensandbox.models.execd_sync import ExecutionHandlersSync
    from opensandbox.models.sandboxes import Host, SandboxEndpoint, SandboxFilter, Volume
except ImportError as missing:
    sys.exit(f"{missing}: `make demo` installs the SDK; `shoal demo` shows a sandbox's life without it")

PAGE = "<h1>Hello from a sandbox</h1>\n"


def main() -> int:
    """Run the demo; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    key = secrets.token_urlsafe(32)

    def steps(server: DemoServer) -> None:
        use_a_sandbox(ConnectionConfigSync(domain=server.address, api_key=key, use_server_proxy=True))

    done = "Done in {seconds}. Next: docs/first-ten-minutes.md does the same by hand."
    return run_demo(steps, done, key=key, failures=(SandboxException,))


def use_a_sandbox(connection: ConnectionConfigSync) -> None:
    """The whole job, with the SDK alone."""
    say("Create a sandbox", 'sandbox = SandboxSync.create("host", timeout=timedelta(minutes=10))')
    report("its image is this machine's root, read-only; the first one on a machine takes some seconds longer")
    begun = time.monotonic()
    sandbox = SandboxSync.create(
        "host",
        timeout=timedelta(minutes=10),
        ready_timeout=timedelta(minutes=2),  # the agent is built for the first sandbox of a machine
        resource={"cpu": "1", "memory": "512Mi"},
        env={"PATH": f"{interpreter()}/bin:/usr/local/bin:/usr/bin:/bin"},
        volumes=python_volume(),
        connection_config=connection,
    )
    report(f"{sandbox.id} is ready after {since(begun)}")
    try:
        run_a_command(sandbox)
        move_files(sandbox)
        run_code(sandbox)
        serve_a_page(sandbox)
        renew_and_pause(sandbox, connection)
    finally:
        say("End it", "sandbox.kill()")
        sandbox.kill()
        sandbox.close()
    with SandboxManagerSync.create(connection) as manager:
        left = manager.list_sandbox_infos(SandboxFilter()).sandbox_infos
    report(f"sandboxes left: {len(left)}")


def python_volume() -> list[Volume] | None:
    """This Python, read-only, if the sandbox would not see it."""
    path = str(interpreter())
    if not is_hidden(interpreter()):
        return None
    return [Volume(name="python", host=Host(path=path), mountPath=path, readOnly=True)]


def run_a_command(sandbox: SandboxSync) -> None:
    """Output arrives while the command runs."""
    say("Run a command; its output comes as it is printed", "sandbox.commands.run(COMMAND, handlers=…)")
    begun = time.monotonic()

    def show(line: OutputMessage) -> None:
        report(f"after {since(begun)}: {line.text.rstrip()}")

    command = "id -un; for i in 1 2 3; do sleep 0.2; echo line $i; done; exit 7"
    done = sandbox.commands.run(command, handlers=ExecutionHandlersSync(on_stdout=show))
    report(f"exit code {done.exit_code}")
    expect(done.exit_code, 7)
    expect(done.text, "root\nline 1\nline 2\nline 3")


def move_files(sandbox: SandboxSync) -> None:
    """A file, there and back."""
    say("Write a file and read it", 'sandbox.files.write_file("/tmp/site/index.html", …)')
    sandbox.files.write_file("/tmp/site/index.html", PAGE)
    content = sandbox.files.read_file("/tmp/site/index.html")
    report(content.strip())
    expect(content, PAGE)


def run_code(sandbox: SandboxSync) -> None:
    """An interpreter that keeps its state, and returns the value of the last line."""
    say("Run Python code", "CodeInterpreterSync.create(sandbox).codes.run(CODE, context=context)")
    with CodeInterpreterSync.create(sandbox) as python:
        context = python.codes.create_context("python")
        python.codes.run("import math\nnumbers = [math.factorial(n) for n in range(8)]", context=context)
        done = python.codes.run("print(numbers)\nsum(numbers)", context=context)
        report(f"it prints {done.logs.stdout[0].text.strip()}, and its last line is {done.result[0].text}")
        expect(done.result[0].text, "5914")
        failed = python.codes.run("numbers[99]", context=context)
        report(f"an error: {failed.error.name}: {failed.error.value}" if failed.error else "no error")
        expect(failed.error and failed.error.name, "IndexError")


def serve_a_page(sandbox: SandboxSync) -> None:
    """A server inside, reached from outside at the address that shoal gives."""
    say("Start a web server in it and open the page", "sandbox.get_endpoint(8000)")
    sandbox.commands.run(
        "exec python3 -m http.server 8000 --bind 127.0.0.1",
        opts=RunCommandOpts(background=True, working_directory="/tmp/site"),
    )
    endpoint = sandbox.get_endpoint(8000)
    report(f"http://{endpoint.endpoint}")
    page = open_page(endpoint, "/")
    report(page.strip())
    expect(page, PAGE)


def renew_and_pause(sandbox: SandboxSync, connection: ConnectionConfigSync) -> None:
    """More time; then every process of it is frozen, and goes on."""
    say("Let it live longer", "sandbox.renew(timedelta(minutes=30))")
    report(f"expires {sandbox.renew(timedelta(minutes=30)).expires_at:%H:%M:%S} UTC")
    say("Pause it and resume it", "sandbox.pause(); SandboxSync.resume(sandbox.id)")
    sandbox.pause()
    report(sandbox.get_info().status.state)
    resumed = SandboxSync.resume(sandbox.id, connection_config=connection)
    page = open_page(resumed.get_endpoint(8000), "/").strip()
    report(f"{resumed.get_info().status.state}; the web server goes on: {page}")
    resumed.close()


def open_page(endpoint: SandboxEndpoint, path: str) -> str:
    """The text at a path of an endpoint, as soon as something listens there; gives up after 30 s."""
    request = urllib.request.Request(f"http://{endpoint.endpoint}{path}", headers=endpoint.headers)
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            if error.code != 502 or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def expect(found: object, wanted: object) -> None:
    """Raises DemoError unless they are equal."""
    if found != wanted:
        raise DemoError(f"expected {wanted!r}, not {found!r}")


if __name__ == "__main__":
    sys.exit(main())
