"""A real server on a namespace of the cluster, and waiting for what it brings about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import ServerProcess

EXECD = "shoal-test/execd:latest"


def configuration(
    namespace: str, provider: str = "pod", *, execd: bool = False, more: str = "", extra: str = ""
) -> str:
    """TOML of a server there: ``more`` lines of ``[kubernetes]``, and ``extra`` tables."""
    brings = f'execd_image = "{EXECD}"\n' if execd else ""
    return (
        f'[runtime]\ntype = "kubernetes"\n{brings}[kubernetes]\nkubeconfig_path = "{os.environ["KUBECONFIG"]}"\n'
        f'namespace = "{namespace}"\nworkload_provider = "{provider}"\n{more}\n{extra}'
    )


@contextmanager
def running(home: Path, config: str) -> Iterator[ServerProcess]:
    """The server, up; stopped in the end."""
    server = ServerProcess(home, config)
    server.start()
    try:
        yield server
    finally:
        server.stop()
