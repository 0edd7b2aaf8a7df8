"""What confines a sandbox: the fragments themselves, and what a process finds under them on the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.docker_runtime.one_container import output, started_engine
from tests.docker_runtime.plans import plan

from shoal.errors import ConfigError
from shoal.models.plan import Sidecar
from shoal_docker.config import DROPPED, DockerSettings, SecureRuntimeSettings
from shoal_docker.security import Security, seccomp_profile

NO_CHMOD = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}],
}
CAP_NET_RAW, CAP_SYS_ADMIN, CAP_CHOWN = 13, 21, 0


def security(secure: SecureRuntimeSettings | None = None, **docker: Any) -> Security:
    return Security(DockerSettings(**docker), secure or SecureRuntimeSettings())


def test_defaults() -> None:
    assert security().of_sandbox(plan()) == {
        "CapDrop": list(DROPPED),
        "SecurityOpt": ["no-new-privileges=true"],
        "PidsLimit": 4096,
    }


def test_everything_can_be_switched_off() -> None:
    """Known weakness of opensandbox-server: a TOML file cannot say that there is no limit of processes."""
    off = security(drop_capabilities=[], no_new_privileges=False, pids_limit=0, apparmor_profile="", seccomp_profile="")
    assert off.of_sandbox(plan()) == {"SecurityOpt": []}


def test_options_in_order() -> None:
    found = security(apparmor_profile="tight", seccomp_profile="unconfined").of_sandbox(plan())
    assert found["SecurityOpt"] == ["no-new-privileges=true", "apparmor=tight", "seccomp=unconfined"]


def test_a_plan_drops_more() -> None:
    found = security(drop_capabilities=["MKNOD"]).of_sandbox(plan(drop_capabilities=["NET_ADMIN", "MKNOD"]))
    assert found["CapDrop"] == ["MKNOD", "NET_ADMIN"]
    assert security(drop_capabilities=[]).of_sandbox(plan(drop_capabilities=["NET_ADMIN"]))["CapDrop"] == ["NET_ADMIN"]


def test_isolation_inside() -> None:
    tight = security(apparmor_profile="tight", seccomp_profile=json.dumps(NO_CHMOD))
    found = tight.of_sandbox(plan(extensions={"bootstrap.execd.isolation": "enable"}))
    assert found == {
        "CapDrop": list(DROPPED),
        "CapAdd": ["SYS_ADMIN"],
        "SecurityOpt": ["no-new-privileges=true", "apparmor=unconfined", "seccomp=unconfined"],
        "PidsLimit": 4096,
        "MaskedPaths": [],
        "ReadonlyPaths": [],
        "Tmpfs": {"/var/lib/execd/isolation": ""},
    }
    for word in ("true", "ENABLE", ""):
        assert "CapAdd" not in tight.of_sandbox(plan(extensions={"bootstrap.execd.isolation": word}))


def test_a_guest_has_its_network_but_not_a_policys() -> None:
    found = security().of_sandbox(plan(), guest=True)
    assert found["CapAdd"] == ["NET_ADMIN", "NET_RAW"]
    assert not {"NET_ADMIN", "NET_RAW"} & set(found["CapDrop"])
    guarded = security().of_sandbox(plan(drop_capabilities=["NET_ADMIN"]), guest=True)
    assert guarded["CapAdd"] == ["NET_RAW"]
    assert "NET_ADMIN" in guarded["CapDrop"]


def test_a_callers_sidecar_is_confined_and_the_operators_is_not() -> None:
    gvisor = security(SecureRuntimeSettings(type="gvisor", docker_runtime="runsc"))
    assert gvisor.of_sidecar(Sidecar(name="db", image="i")) == gvisor.of_sandbox(plan())
    assert gvisor.of_sidecar(Sidecar(name="db", image="i"))["Runtime"] == "runsc"
    trusted = Sidecar(name="egress", image="i", trusted=True, capabilities=["NET_ADMIN"])
    assert gvisor.of_sidecar(trusted) == {}


def test_a_secure_runtime_must_be_there() -> None:
    kata = security(SecureRuntimeSettings(type="kata", docker_runtime="kata-fc"))
    with pytest.raises(ConfigError, match="'kata-fc'; it has runc, runsc"):
        kata.verify({"Runtimes": {"runsc": {}, "runc": {}}})
    assert kata.verify({"Runtimes": {"kata-fc": {}}}) == []


def test_profiles_without_effect_are_said() -> None:
    both = security(apparmor_profile="tight", seccomp_profile="unconfined")
    assert both.verify({"SecurityOptions": ["name=seccomp,profile=default", "name=apparmor"]}) == []
    assert [line.split()[0] for line in both.verify({"SecurityOptions": []})] == [
        "docker.apparmor_profile",
        "docker.seccomp_profile",
    ]


def test_a_profile_from_a_file(tmp_path: Path) -> None:
    """Known weakness of opensandbox-server: it sends the path, and the engine wants what is in the file."""
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(NO_CHMOD, indent=2))
    sent = seccomp_profile(str(file))
    assert sent is not None
    assert json.loads(sent) == NO_CHMOD
    assert "\n" not in sent


@pytest.mark.parametrize("text", ["[]", "{}", "not json", "\xff"])
def test_a_file_that_holds_no_profile(tmp_path: Path, text: str) -> None:
    file = tmp_path / "profile.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"docker\.seccomp_profile"):
        seccomp_profile(str(file))


def test_profiles_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        seccomp_profile(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="not JSON"):
        seccomp_profile("{")
    assert [seccomp_profile(text) for text in (None, "", "  ", "unconfined")] == [None, None, None, "unconfined"]


@pytest.mark.needs("docker")
async def test_under_the_defaults() -> None:
    async with started_engine() as engine:
        script = "cat /proc/self/status; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"
        printed = await output(engine, ["sh", "-c", script], security(pids_limit=77).of_sandbox(plan()))
    status = dict(line.split(":\t", 1) for line in printed.splitlines() if ":\t" in line)
    bits = int(status["CapBnd"], 16)
    assert not bits >> CAP_NET_RAW & 1
    assert not bits >> CAP_SYS_ADMIN & 1
    assert bits >> CAP_CHOWN & 1
    assert status["NoNewPrivs"].strip() == "1"
    assert "77" in printed.splitlines()


@pytest.mark.needs("docker")
async def test_isolation_really_gives_room() -> None:
    made = plan(extensions={"bootstrap.execd.isolation": "enable"})
    async with started_engine() as engine:
        script = (
            "cat /proc/self/status; mkdir /x && mount -t tmpfs none /x && echo mounted; grep isolation /proc/mounts"
        )
        printed = await output(engine, ["sh", "-c", script], security().of_sandbox(made))
    assert "mounted" in printed.splitlines()
    assert "/var/lib/execd/isolation tmpfs" in printed
    assert "NoNewPrivs:\t1" in printed


@pytest.mark.needs("docker")
async def test_a_profile_of_a_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(NO_CHMOD))
    async with started_engine() as engine:
        script = ["sh", "-c", "touch /f; chmod 777 /f && echo changed || echo refused"]
        assert "refused" in await output(engine, script, security(seccomp_profile=str(file)).of_sandbox(plan()))
        assert "changed" in await output(engine, script, security().of_sandbox(plan()))


@pytest.mark.needs("docker")
async def test_a_runtime_of_the_engine_is_used() -> None:
    async with started_engine() as engine:
        secure = SecureRuntimeSettings(type="gvisor", docker_runtime=engine.info["DefaultRuntime"])
        chosen = security(secure)
        assert chosen.verify(engine.info) == []
        assert "ran" in await output(engine, ["echo", "ran"], chosen.of_sandbox(plan()))
