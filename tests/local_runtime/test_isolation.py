"""What a sandbox can and cannot see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.local_runtime.machine import ROOT, Start, ignore, let_pass, link, local, plan, run, there

from shoal.errors import ConfigError
from shoal_local.runtime import LocalRuntime

GIVEN = {"GIVEN": 'it\'s "quoted"\nand long', "LD_SHOAL_TEST": "x", "a.b-c": "dotted"}


async def shell(runtime: LocalRuntime, script: str, **more: object) -> str:
    _, output = await run(runtime, plan("sh", "-c", script, **more))  # type: ignore[arg-type]  # plan's own keywords
    return output


async def test_it_is_root_inside_and_nobody_outside(runtime: LocalRuntime) -> None:
    assert await shell(runtime, "id -u; id -g") == "0\n0\n"
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    text = await runtime.inspect(wanted.id)
    user = "64000:64000" if ROOT else f"{os.geteuid()}:{os.getegid()}"
    assert f"User:           {user} on this machine" in text


async def test_secrets_of_this_machine_are_hidden(runtime: LocalRuntime, tmp_path: Path) -> None:
    script = f"cat /etc/shadow; ls -A /home /root /tmp; ls {tmp_path} {tmp_path / 'local'}; echo end"
    output = await shell(runtime, script)
    assert "Permission denied" in output.splitlines()[0]
    shown = [line for line in output.splitlines()[1:] if not line.startswith("ls:")]
    assert shown == ["/home:", "", "/root:", "", "/tmp:", "end"]


async def test_only_its_own_processes_are_seen(runtime: LocalRuntime) -> None:
    output = await shell(runtime, "for p in /proc/[0-9]*; do cat $p/cmdline 2>/dev/null | tr '\\0' ' '; echo; done")
    assert {line.split()[0].rsplit("/", 1)[-1] for line in output.splitlines() if line} <= {"sh", "cat", "tr", "bwrap"}


async def test_namespaces_are_its_own(runtime: LocalRuntime) -> None:
    kinds = ("user", "mnt", "pid", "ipc", "uts", "net")
    output = await shell(runtime, "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds))
    outside = [link(f"/proc/self/ns/{kind}") for kind in kinds]
    shared = [kind for kind, mine, its in zip(kinds, outside, output.split(), strict=True) if mine == its]
    assert shared == []


async def test_the_frame_cannot_be_entered_or_undone(runtime: LocalRuntime, tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    script = (
        f"for p in /proc/[0-9]*; do ls $p/root{tmp_path}/outside $p/cwd{tmp_path}/outside && echo ENTERED; done;"
        " umount /root && echo UNMOUNTED; umount -l / && echo UNMOUNTED;"
        " mount -o remount,rw / 2>/dev/null && touch /usr/bin/new && echo WRITTEN; kill -9 1; echo alive"
    )
    output = await shell(runtime, script)
    assert output.splitlines()[-1] == "alive"
    assert "ENTERED" not in output
    assert "UNMOUNTED" not in output
    assert not there("/usr/bin/new")


async def test_leaving_by_chroot_fails(runtime: LocalRuntime, tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    if not there(python):
        pytest.skip("needs python3 in /usr/bin")
    (tmp_path / "outside").touch()
    escape = (
        "import os\n"
        "try:\n"
        " os.mkdir('/tmp/x'); there = os.open('/', os.O_RDONLY); os.chroot('/tmp/x'); os.fchdir(there)\n"
        " for _ in range(50): os.chdir('..')\n"
        " os.chroot('.')\n"
        "except OSError as error: print(error)\n"
        f"print(os.path.exists({str(tmp_path / 'outside')!r}))\n"
    )
    _, output = await run(runtime, plan(python, "-c", escape))
    assert output.splitlines()[-1] == "False"


async def test_it_writes_to_its_own_layer_only(runtime: LocalRuntime) -> None:
    name = "shoal-test-written"
    folders = ("/", "/tmp", "/var/tmp", "/root", "/home", "/run", "/dev/shm", "/etc", "/usr/local/bin")
    script = f"for d in {' '.join(folders)}; do touch $d/{name}; ls $d/{name}; done"
    output = await shell(runtime, script)
    for folder in ("/tmp", "/var/tmp", "/root", "/home", "/run"):
        assert f"{folder}/{name}" in output.splitlines()
    for folder in folders:
        assert not there(f"{folder}/{name}")


async def test_only_standard_descriptors_are_inherited(start: Start, isolation: str) -> None:
    inherited = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    runtime = await start(local(isolation=isolation))
    _, output = await run(runtime, plan("ls", "-l", "/proc/self/fd"))
    os.close(inherited)
    found = dict(line.split()[-3::2] for line in output.splitlines() if "->" in line)
    assert found["0"] == "/dev/null"
    assert found["1"] == found["2"]
    assert found["1"].endswith("output.log")
    # The fourth is the directory that ls itself is reading.
    assert [target for number, target in found.items() if number not in "012" and not target.endswith("/fd")] == []


async def test_the_environment_is_clean(runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_ONLY", "1")
    wanted = plan("env", env={**GIVEN, "LANG": None})
    _, output = await run(runtime, wanted)
    lines = set(output.splitlines())
    assert {
        'GIVEN=it\'s "quoted"',
        "and long",
        "LD_SHOAL_TEST=x",
        "a.b-c=dotted",
        f"OPENSANDBOX_ID={wanted.id}",
    } <= lines
    assert {line.partition("=")[0] for line in lines} - {"and long"} <= {
        *("GIVEN", "LD_SHOAL_TEST", "a.b-c", "OPENSANDBOX_ID", "PATH", "HOME", "PWD", "SHLVL", "_"),
    }


async def test_loader_variables_do_nothing_outside(runtime: LocalRuntime, tmp_path: Path) -> None:
    """A library named by LD_PRELOAD must not be loaded by the programs that build the sandbox."""
    _, output = await run(runtime, plan("echo", "fine", env={"LD_PRELOAD": "/nonexistent/evil.so"}))
    # The command itself and env(1) complain, inside; the set-up must not.
    assert output.splitlines()[-1] == "fine"
    assert output.count("evil.so") <= 2


async def test_without_overlay_the_root_is_read_only(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, overlay="off"))
    output = await shell(runtime, "touch /etc/x || echo read-only; touch /tmp/y /root/z && echo private")
    assert output.splitlines()[-2:] == ["read-only", "private"]
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    assert "Root:         read-only (no overlay" in await runtime.inspect(wanted.id)


async def test_hidden_paths(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, hidden_paths=["/usr/share/doc", "/etc/hostname"]))
    output = await shell(runtime, "ls -A /usr/share/doc | wc -l; cat /etc/hostname 2>/dev/null | wc -c")
    assert output.split() == ["0", "0"]


async def test_none_isolates_nothing_and_says_so(start: Start, tmp_path: Path) -> None:
    let_pass(tmp_path)
    runtime = await start(local(isolation="none"))
    wanted = plan("sh", "-c", "id -u; cd && pwd; (setsid sleep 1000 &); exec sleep 1000")
    await runtime.create(wanted, ignore)
    text = await runtime.inspect(wanted.id)
    assert "Isolated:     nothing" in text
    output = await shell(runtime, "id -u; touch ~/here && echo home")
    assert output.split() == ["64000" if ROOT else str(os.geteuid()), "home"]


async def test_no_isolation_is_never_chosen_silently(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_local.run.probe.TOOL_PATH", "/nonexistent-but-for-sh")
    monkeypatch.setattr("shoal_local.run.probe.shutil.which", lambda name, path: "/bin/sh" if name == "sh" else None)
    with pytest.raises(ConfigError, match='isolation = "none"'):
        await start(local())
