"""What the README shows of the SDK and of the command line runs as copied, on the local runtime."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.servers import SHOAL, ServerProcess

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
KEY = "readme-key"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("readme")
    made = ServerProcess(home, f'[local]\nstate_dir = "{home}/local"\n', env={"OPENSANDBOX_SERVER_API_KEY": KEY})
    made.start()
    yield made
    made.stop()


def test_the_example_of_the_sdk(server: ServerProcess) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = example.replace("127.0.0.1:8080", server.base.removeprefix("http://"))
    env = {**os.environ, "OPEN_SANDBOX_API_KEY": KEY}
    done = subprocess.run([sys.executable, "-c", code], env=env, input="\n", capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    output, kept, endpoint, _ = done.stdout.splitlines()
    assert "text='hello'" in output
    assert "text='Linux'" in output
    assert kept == "kept in the sandbox"
    assert endpoint.endswith("/proxy/8000")


def test_the_example_of_the_command_line(server: ServerProcess) -> None:
    [line] = re.findall(r"^(shoal run -- .*?)  +#", README, re.MULTILINE)
    env = {**os.environ, "OPEN_SANDBOX_API_KEY": KEY, "OPEN_SANDBOX_DOMAIN": server.base}
    env["PATH"] = f"{SHOAL.parent}:{env['PATH']}"
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout, done.stderr) == (0, "18446744073709551616\n", "")
