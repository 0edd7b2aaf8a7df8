"""A program, not a test: sandboxes with a way to an internet that is this program's own, run by test_internet.

It runs as root in network and mount namespaces of its own. Another process, in a namespace of its own, plays everything
that a machine reaches: a public address, a private one, a metadata service, and name service.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from tests.local_runtime.machine import ignore, local, plan, processes_of, run, settings

from shoal_local.network import modes
from shoal_local.network.outward import RESOLVER
from shoal_local.runtime import LocalRuntime

PUBLIC, OWN, PRIVATE, METADATA = "93.184.216.34", "93.184.216.1", "10.9.9.9", "169.254.169.254"
WORLD = """
import socket, struct, threading
def web():
    s = socket.create_server(("0.0.0.0", 80))
    while True:
        c, _ = s.accept(); c.sendall(b"the world"); c.close()
threading.Thread(target=web, daemon=True).start()
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); names.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    data, who = names.recvfrom(512)
    end = data.index(b"\\0", 12) + 5
    kind = struct.unpack(">H", data[end - 4 : end - 2])[0]
    answer = b"\\xc0\\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("93.184.216.34") if kind == 1 else b""
    names.sendto(data[:2] + struct.pack(">HHHHH", 0x8180, 1, kind == 1, 0, 0) + data[12:end] + answer, who)
"""
LOOK = """
import socket
def tried(name, address, bind=False):
    s = socket.socket(); s.settimeout(5)
    try:
        if bind: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        s.connect(address); print(name, s.recv(20).decode() or "closed")
    except OSError as error: print(name, "failed")
%s
print("name", socket.gethostbyname("example.test"))
"""


def world() -> subprocess.Popen[str]:
    """Everything outside of this machine, joined to it by a pair of interfaces."""
    words = ["unshare", "--net", sys.executable, "-c", WORLD]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while os.stat(f"/proc/{process.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
        pass
    inside = f"nsenter --net --target {process.pid} "
    addresses = (f"{PUBLIC}/24", f"{PRIVATE}/24", f"{METADATA}/16")
    for line in (
        "ip link set lo up",
        f"ip link add uplink type veth peer name world netns {process.pid}",
        f"ip addr add {OWN}/24 dev uplink",
        "ip addr add 10.9.9.1/24 dev uplink",
        "ip link set uplink up",
        *(f"{inside}ip addr add {address} dev world" for address in addresses),
        f"{inside}ip link set world up",
        f"ip route add default via {PUBLIC}",
        f"ip route add {METADATA}/32 dev uplink",
        f"{inside}ip addr add {RESOLVER}/32 dev world",
        f"ip route add {RESOLVER}/32 dev uplink",
    ):
        subprocess.run(line.split(), check=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def serve_own() -> int:
    """A service of this machine on all of its addresses; its port."""
    server = socket.create_server(("0.0.0.0", 0))

    def answer() -> None:
        while True:
            client, _ = server.accept()
            client.sendall(b"this machine")
            client.close()

    threading.Thread(target=answer, daemon=True).start()
    port: int = server.getsockname()[1]
    return port


async def main(base: Path, method: str) -> None:
    port = serve_own()
    tries = [
        f"tried('public', ({PUBLIC!r}, 80))",
        f"tried('private', ({PRIVATE!r}, 80))",
        f"tried('bound', ({PRIVATE!r}, 80), True)",
        f"tried('metadata', ({METADATA!r}, 80))",
        f"tried('own', ({OWN!r}, {port}))",
        f"tried('namesake', ({RESOLVER!r}, 80))",
        f"tried('gateway', ('10.0.2.2', {port}))",
        f"tried('loopback', ('127.0.0.1', {port}))",
    ]
    script = LOOK % "\n".join(tries)
    for allow, private in (([], "failed"), (["10.9.9.0/24"], "the world")):
        runtime = LocalRuntime(settings(base), local(isolation=method, network="internet", network_allow=allow))
        await runtime.start()
        wanted = plan("/usr/bin/python3", "-c", script)
        ended, output = await run(runtime, wanted)
        assert output.splitlines() == [
            "public the world",
            f"private {private}",
            f"bound {private}",
            *(f"{name} failed" for name in ("metadata", "own", "namesake", "gateway", "loopback")),
            f"name {PUBLIC}",
        ], (output, ended)
        assert modes.WORDS["internet"] in await runtime.inspect(wanted.id)
        hasty = plan("cat", "/proc/net/route")
        assert "eth0" in (await run(runtime, hasty))[1], "a command has its network from its first instruction on"
        sleeping = plan("sleep", "1000")
        await runtime.create(sleeping, ignore)
        started = runtime._keeper.state.box(sleeping.id).started()
        assert started is not None
        assert started.net is not None
        assert started.net.alive()
        await runtime.stop()
        assert started.net.alive(), "it outlives the server, as its sandbox does"
        runtime = LocalRuntime(settings(base), local(isolation=method, network="internet"))
        await runtime.start()
        for sandbox_id in (wanted.id, hasty.id, sleeping.id):
            await runtime.delete(sandbox_id)
            assert processes_of(sandbox_id) == []
        assert not started.net.alive()
        await runtime.stop()


if __name__ == "__main__":
    base, method = Path(sys.argv[1]), sys.argv[2]
    modes.SEARCH = f"{sys.argv[3]}:{modes.SEARCH}"  # type: ignore[misc]  # where the test found the program
    (base / "resolv.conf").write_text(f"nameserver {PUBLIC}\n")
    subprocess.run(["mount", "--bind", str(base / "resolv.conf"), str(Path("/etc/resolv.conf").resolve())], check=True)
    outside = world()
    try:
        asyncio.run(main(base, method))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        outside.kill()
    sys.stdout.write("all well\n")
