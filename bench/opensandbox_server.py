"""opensandbox-server on Docker, started from a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Server, await_health, free_port

IMAGE = "shoal-test/busybox:latest"
EXECD = "shoal-test/execd:latest"


@contextmanager
def opensandbox_server(venv: Path, home: Path, network: str = "bridge", execd: str = EXECD) -> Iterator[Server]:
    """opensandbox-server with its default of one process, open, on the Docker engine of the environment."""
    port = free_port()
    config = home / "sandbox.toml"
    config.write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {port}\n[log]\nlevel = "WARNING"\n'
        f'[runtime]\ntype = "docker"\nexecd_image = "{execd}"\n[docker]\nnetwork_mode = "{network}"\n'
        f'[store]\npath = "{home / "sandbox.db"}"\n'
    )
    env = {**os.environ, "OPENSANDBOX_INSECURE_SERVER": "YES", "HOME": str(home)}
    log = (home / "sandbox.log").open("ab")
    process = subprocess.Popen([venv / "bin/opensandbox-server", "--config", config], stdout=log, stderr=log, env=env)
    try:
        await_health(f"http://127.0.0.1:{port}", process)
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(60)
        log.close()


@contextmanager
def populated(server: Server, count: int) -> Iterator[list[str]]:
    """``count`` live sandboxes on opensandbox-server, deleted afterwards."""
    body = {"image": {"uri": IMAGE}, "entrypoint": ["sleep", "86400"], "resourceLimits": {}, "timeout": 86400}
    with ThreadPoolExecutor(8) as pool:
        ids = [made["id"] for made in pool.map(lambda _: server.call("POST", "/v1/sandboxes", body), range(count))]
        try:
            yield ids
        finally:
            list(pool.map(lambda sandbox: server.call("DELETE", f"/v1/sandboxes/{sandbox}"), ids))
