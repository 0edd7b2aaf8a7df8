"""Sandboxes with a way to the internet: what is open, what is closed, and what is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.local_runtime.machine import local

from shoal.errors import EngineFailure
from shoal_local.network import client, modes, outward

PASTA = shutil.which("pasta", path=os.environ.get("SHOAL_TEST_PASTA") or modes.SEARCH)
"""``SHOAL_TEST_PASTA`` is a directory that holds the program."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the machine's side of an internet")
@pytest.mark.skipif(PASTA is None, reason="pasta is not installed (package passt)")
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip (package iproute2)")
@pytest.mark.usefixtures("isolation")
def test_the_internet_is_open_and_everything_else_is_closed(tmp_path: Path, isolation: str) -> None:
    assert PASTA is not None
    program = [sys.executable, "-m", "tests.local_runtime.internet", str(tmp_path), isolation, str(Path(PASTA).parent)]
    done = subprocess.run(
        ["unshare", "--net", "--mount", *program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1:] == ["all well"], done.stdout + done.stderr


def test_this_machines_addresses_are_closed() -> None:
    assert {"127.0.0.1/32", *outward.CLOSED} <= set(outward.closed())


def test_a_whole_network_may_be_this_machine() -> None:
    """A route of the type ``local``, also where another route begins with the same address."""
    trie = (
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 198.51.100.0\n"
        "        /24 link UNICAST\n        /28 host LOCAL\n     |-- 198.51.100.9\n        /32 host LOCAL\n"
    )
    assert outward.own_networks(trie * 2) == ["198.51.100.0/28", "198.51.100.9/32"]


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "fd00::/8", "somewhere"])
def test_networks_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"network_allow\[0\]"):
        local(network_allow=[wrong])


def test_a_filter_that_cannot_be_installed_is_an_error() -> None:
    broker, own = client.Broker(), Path("/proc/self/ns/net").stat().st_ino
    with subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sleep", "60"]) as other:
        try:
            while Path(f"/proc/{other.pid}/ns/net").stat().st_ino == own:
                time.sleep(0.01)
            handle = os.open(f"/proc/{other.pid}/ns/net", os.O_RDONLY)
            with pytest.raises(EngineFailure, match="entered"):
                broker.restrict(handle, ["nonsense"], ["10.0.0.0/8"])
            broker.restrict(handle, ["10.0.0.1/32"], ["10.0.0.0/8"])
            os.close(handle)
        finally:
            other.kill()
            broker.close()
