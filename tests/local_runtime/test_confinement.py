"""The filter of system calls: on its own, and on sandboxes."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, local, plan, run

from shoal_local.confine import calls, entry, files, program
from shoal_local.runtime import LocalRuntime

MACHINE = platform.machine()
PYTHON = "/usr/bin/python3"
REFUSED, ABSENT = 77, 78
"""Numbers of errors that no call gives by itself."""
TRY = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
numbers = [int(word, 0) for word in sys.argv[1:]]
libc.syscall(*(ctypes.c_long(number) for number in numbers))
print(ctypes.get_errno())
"""

pytestmark = pytest.mark.skipif(MACHINE not in files.MACHINES, reason="there is no filter for this architecture")
needs_python = pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs python3 in /usr/bin")


def number(call: calls.Call) -> int | None:
    return call.x86_64 if MACHINE == "x86_64" else call.aarch64


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry program, with a filter whose refusals are told apart from the kernel's own."""
    path = tmp_path_factory.mktemp("confine") / "entry"
    path.write_bytes(entry.build(MACHINE, program.build(MACHINE, refusal=REFUSED, absent=ABSENT)))
    path.chmod(0o755)
    return path


def error(path: Path, *words: int) -> int:
    """The errno that a call with these numbers gives behind the filter."""
    done = subprocess.run(
        [str(path), sys.executable, "-c", TRY, *map(str, words)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("name", [*calls.KERNEL, *calls.NAMESPACES])
def test_each_call_is_refused(strict: Path, name: str) -> None:
    wanted = number({**calls.KERNEL, **calls.NAMESPACES}[name])
    if wanted is None:
        pytest.skip(f"{MACHINE} has no {name}")
    assert error(strict, wanted, -1, -1, -1, -1, -1) == REFUSED


@pytest.mark.parametrize(
    ("call", "words", "expected"),
    [
        (calls.CLONE, (0x10000000,), REFUSED),  # CLONE_NEWUSER
        (calls.CLONE, (0x40000000,), REFUSED),  # CLONE_NEWNET
        (calls.CLONE3, (0, 0), ABSENT),
        (calls.UNSHARE, (0x10000000,), REFUSED),
        (calls.UNSHARE, (0x80,), REFUSED),  # CLONE_NEWTIME
        (calls.UNSHARE, (0x200,), 0),  # CLONE_FS, of threads
        (calls.SOCKET, (40, 1, 0), REFUSED),  # AF_VSOCK
        (calls.SOCKET, (38, 5, 0), REFUSED),  # AF_ALG
        (calls.SOCKET, (2, 1, 0), 0),
        (calls.SOCKET, (1, 1, 0), 0),
        (calls.PERSONALITY, (0x0400000,), REFUSED),  # READ_IMPLIES_EXEC
        (calls.PERSONALITY, (0xFFFFFFFF,), 0),
        (calls.IOCTL, (0, 0x5412, 0), REFUSED),
        (calls.IOCTL, (-1, 0x5401, 0), 9),  # EBADF: the kernel's own answer
    ],
)
def test_arguments_decide(strict: Path, call: calls.Call, words: tuple[int, ...], expected: int) -> None:
    wanted = number(call)
    assert wanted is not None
    assert error(strict, wanted, *words) == expected


def test_what_came_later_does_not_exist(strict: Path) -> None:
    assert error(strict, calls.NEWEST + 1) == ABSENT
    assert error(strict, calls.NEWEST) != ABSENT
    if MACHINE == "x86_64":
        assert error(strict, 0x40000000 + 39) == ABSENT  # x32's getpid


def test_nested_namespaces_may_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.write_bytes(entry.build(MACHINE, program.build(MACHINE, nested=True, refusal=REFUSED, absent=ABSENT)))
    path.chmod(0o755)
    mount, keyctl = number(calls.NAMESPACES["mount"]), number(calls.KERNEL["keyctl"])
    assert mount is not None
    assert keyctl is not None
    assert error(path, mount, 0, 0, 0, 0, 0) != REFUSED
    assert error(path, keyctl, 0) == REFUSED


@pytest.mark.parametrize("machine", sorted(files.MACHINES))
def test_the_numbers_are_the_kernels(machine: str) -> None:
    """Compared with the headers of the C library, where they are installed."""
    x86 = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    place = Path(x86 if machine == "x86_64" else "/usr/include/asm-generic/unistd.h")
    if not place.exists():
        pytest.skip(f"needs {place}")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", place.read_text()))
    named = {**calls.KERNEL, **calls.NAMESPACES, "clone": calls.CLONE, "clone3": calls.CLONE3}
    named |= {"unshare": calls.UNSHARE, "socket": calls.SOCKET, "ioctl": calls.IOCTL, "personality": calls.PERSONALITY}
    for name, call in named.items():
        found = call.x86_64 if machine == "x86_64" else call.aarch64
        assert (None if found is None else str(found)) == known.get(name), name


def test_a_command_that_cannot_be_executed_is_told(strict: Path) -> None:
    done = subprocess.run([str(strict), "/nonexistent"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (entry.FAILED, entry.COMPLAINT)


def test_arguments_and_environment_arrive_and_the_descriptor_is_closed(strict: Path) -> None:
    onto = f'exec {entry.DESCRIPTOR}</dev/null "$@"'
    script = 'echo "$1|$2|$GIVEN"; ls /proc/self/fd'
    done = subprocess.run(
        ["/bin/sh", "-c", onto, "sh", str(strict), "/bin/sh", "-c", script, "sh", "a b", ""],
        env={"GIVEN": "x y"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *descriptors = done.stdout.split("\n")
    assert first == "a b||x y"
    assert str(entry.DESCRIPTOR) not in descriptors


async def status(runtime: LocalRuntime) -> dict[str, str]:
    _, output = await run(runtime, plan("cat", "/proc/self/status"))
    return dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)


async def test_sandboxes_are_confined(runtime: LocalRuntime) -> None:
    found = await status(runtime)
    assert (found["Seccomp"].strip(), found["NoNewPrivs"].strip()) == ("2", "1")


async def test_the_filter_may_be_left_out(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, seccomp="off"))
    found = await status(runtime)
    assert found["Seccomp"].strip() == "0"


@needs_python
@pytest.mark.parametrize("nested", [False, True])
async def test_namespaces_within(start: Start, isolation: str, nested: bool) -> None:
    runtime = await start(local(isolation=isolation, nested_namespaces=nested))
    _, output = await run(runtime, plan("sh", "-c", "unshare --user echo nested || echo refused"))
    assert output.splitlines()[-1] == ("nested" if nested else "refused")


@needs_python
async def test_ways_out_are_shut(runtime: LocalRuntime) -> None:
    script = (
        "import ctypes, os, socket\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def said(name, value): print(name, os.strerror(ctypes.get_errno()) if value < 0 else 'WORKED')\n"
        f"said('keyctl', libc.syscall({number(calls.KERNEL['keyctl'])}, 0, -3, 0))\n"
        "said('mount', libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))\n"
        f"said('bpf', libc.syscall({number(calls.KERNEL['bpf'])}, 0, 0, 0))\n"
        "try: socket.socket(socket.AF_VSOCK); print('vsock WORKED')\n"
        "except OSError as error: print('vsock', error.strerror)\n"
    )
    _, output = await run(runtime, plan(PYTHON, "-c", script))
    refused = "Operation not permitted"
    assert output.splitlines() == [
        f"keyctl {refused}",
        f"mount {refused}",
        f"bpf {refused}",
        "vsock Address family not supported by protocol",
    ]


async def test_threads_and_processes_work(runtime: LocalRuntime) -> None:
    """What needs clone3 or io_uring falls back."""
    script = "seq 5 | xargs -P 4 -n 1 echo | wc -l; (sleep 0 & wait) && echo done"
    _, output = await run(runtime, plan("sh", "-c", script))
    assert output.split() == ["5", "done"]
