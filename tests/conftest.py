"""What every test shares: engines that a test needs, and clean logging."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import shutil
import signal
import socket
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import httpx
import pytest
import redis
import urllib3
from tests.docker_runtime import own_engine
from tests.support import browser, real
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it ships no types

from shoal.errors import ConfigError
from shoal_k8s.api.connection import ApiConnection

_RT_SIGACTION: Final = {"x86_64": 13, "aarch64": 134}


def _default_signals() -> None:
    """Give signals that are ignored their defaults, so that programs which tests start get them.

    A shell starts what it does not wait for with SIGINT ignored. glibc's posix_spawn, by which ``make`` starts
    programs, ignores 32 and 33.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    number = _RT_SIGACTION.get(os.uname().machine)
    if number is not None:
        for internal in (32, 33):
            ctypes.CDLL(None).syscall(number, internal, bytes(32), None, 8)


_default_signals()

DEBIAN: Final = "shoal-test/debian:latest"
"""An image with more in it than BusyBox: python3, nftables, curl."""
JUPYTER: Final = "shoal-test/jupyter:latest"
"""That with IPython, matplotlib and a Jupyter server."""


def _bubblewrap() -> str | None:
    return None if shutil.which("bwrap") else "bubblewrap (bwrap) is not installed"


def _docker() -> str | None:
    return _engine("DOCKER_HOST", os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))


def _podman() -> str | None:
    host = os.environ.get("SHOAL_TEST_PODMAN_HOST")
    return _engine("SHOAL_TEST_PODMAN_HOST", host) if host else "SHOAL_TEST_PODMAN_HOST names no Podman socket"


def _engine(variable: str, host: str) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the SDK leaves the socket of a failed connection open
        try:
            client = docker.DockerClient(base_url=host, timeout=5)
            client.ping()
            client.close()
            reason = None
        except docker.errors.DockerException:
            reason = f"no container engine answers at {variable}={host}"
        gc.collect()
    return reason


def _image(name: str) -> str | None:
    if (reason := _docker()) is not None:
        return reason
    try:
        client = docker.from_env(timeout=5)
        client.images.get(name)
        client.close()
    except docker.errors.DockerException:
        return f"no container engine that has the image {name}"
    return None


def _redis() -> str | None:
    url = os.environ.get("SHOAL_TEST_REDIS_URL")
    if not url:
        return "SHOAL_TEST_REDIS_URL names no Redis"
    try:
        with redis.Redis.from_url(url, socket_timeout=5) as client:
            client.ping()
    except redis.RedisError:
        return "no Redis answers at SHOAL_TEST_REDIS_URL"
    return None


def _mysql() -> str | None:
    """A sandbox's own server has a root without a password, as a fresh one has."""
    try:
        socket.create_connection(("127.0.0.1", 3306), timeout=5).close()
    except OSError:
        return "no MySQL server answers at 127.0.0.1:3306"
    return None


def _registry() -> str | None:
    address = os.environ.get("SHOAL_TEST_REGISTRY")
    if not address:
        return "SHOAL_TEST_REGISTRY names no registry"
    try:
        httpx.get(f"http://{address}/v2/", timeout=5)
    except httpx.TransportError:
        return f"no registry answers at SHOAL_TEST_REGISTRY={address}"
    return None


def _k8s() -> str | None:
    file = os.environ.get("KUBECONFIG")
    if not file:
        return "KUBECONFIG names no cluster"
    try:
        connection = ApiConnection(file)
        connection.open("GET", "/version", body=None, content_type="", timeout=urllib3.Timeout(5)).close()
    except (ConfigError, urllib3.exceptions.HTTPError, OSError):
        return f"no API server answers at KUBECONFIG={file}"
    return None


def _chromium() -> str | None:
    return None if browser.program() else f"no browser is installed: {', '.join(browser.PROGRAMS)}"


def _compose() -> str | None:
    if shutil.which("docker-compose"):
        return None
    plugin = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    )
    return None if plugin and plugin.returncode == 0 else "neither docker-compose nor docker compose is installed"


def _helm() -> str | None:
    absent = [program for program in ("helm", "kubectl") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


PROBES: dict[str, Callable[[], str | None]] = {
    "bubblewrap": _bubblewrap,
    "chromium": _chromium,
    "compose": functools.cache(_compose),
    "debian": functools.cache(lambda: _image(DEBIAN)),
    "docker": functools.cache(_docker),
    "dockerd": own_engine.missing,
    "helm": _helm,
    "jupyter": functools.cache(lambda: _image(JUPYTER)),
    "k8s": functools.cache(_k8s),
    "mysql": functools.cache(_mysql),
    "podman": functools.cache(_podman),
    "redis": functools.cache(_redis),
    "registry": functools.cache(_registry),
}
"""Engine name → a function that says why it cannot be used, or None."""
SHARED = {"k8s": ("k8s",), "docker": ("docker", "podman", "registry")}
"""Engines whose tests look at all that is there, or stop it: theirs run one after another."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(engine): skip without that engine; fail if SHOAL_REQUIRE names it")
    config.addinivalue_line(
        "markers", 'needs("real", parts=[...]): skip without those parts of `tests/support/real.py`'
    )


class _Groups(LoadScopeScheduling):  # type: ignore[misc]  # for the same reason
    """Where several processes share the suite: a file is one's, and so is everything on one shared engine."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.split("::")[0])


@functools.cache
def _group(file: str) -> str:
    # By its text, for the process that shares the files out has not collected them.
    text = (Path(__file__).parent.parent / file).read_text()
    marked = (group for group, engines in SHARED.items() if any(f'needs("{engine}")' in text for engine in engines))
    return next(marked, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Groups:
    return _Groups(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked ``needs(engine)`` skips where there is none, and fails where SHOAL_REQUIRE promised one."""
    required = set(filter(None, os.environ.get("SHOAL_REQUIRE", "").split(",")))
    for marker in item.iter_markers("needs"):
        for engine in marker.args:
            reason = real.missing(marker.kwargs["parts"]) if engine == "real" else PROBES[engine]()
            if reason is not None and engine in required:
                pytest.fail(f"SHOAL_REQUIRE names {engine}, but {reason}", pytrace=False)
            if reason is not None:
                pytest.skip(reason)
