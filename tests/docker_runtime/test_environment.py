"""What a sandbox's process finds in its environment, and how its command is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.docker_runtime.one_container import output, started_engine
from tests.docker_runtime.plans import plan

from shoal.errors import InvalidRequest
from shoal.models.plan import Sidecar
from shoal_docker import environment
from shoal_docker.environment import Start


def test_the_request_wins_and_null_takes_away() -> None:
    made = plan(env={"BASE": None, "BOTH": "mine", "OWN": ""})
    found = environment.variables(made, {"BASE": "b", "BOTH": "theirs", "KEPT": "k"})
    assert found == {"BOTH": "mine", "KEPT": "k", "OWN": "", "OPENSANDBOX_ID": made.id}


def test_the_id_and_init_are_the_servers() -> None:
    made = plan(env={"OPENSANDBOX_ID": "forged", "EXECD_INIT": "0", "A": "1"})
    found = environment.variables(made, {}, init=True)
    assert found == {"A": "1", "EXECD_INIT": "1", "OPENSANDBOX_ID": made.id}
    assert list(found)[-1] == "OPENSANDBOX_ID"
    assert environment.variables(plan(env={"EXECD_INIT": "9"}), {})["EXECD_INIT"] == "9"


@given(st.dictionaries(st.text(min_size=1, max_size=30), st.none() | st.text(max_size=20), max_size=6))
def test_nothing_said_to_the_egress_sidecar_reaches_the_sandbox(env: dict[str, str | None]) -> None:
    forwarded = {f"OPENSANDBOX_EGRESS_{name}": value for name, value in env.items()}
    assert environment.variables(plan(env=forwarded), forwarded_base(env)).keys() == {"OPENSANDBOX_ID"}


def forwarded_base(env: dict[str, str | None]) -> dict[str, str]:
    return {f"OPENSANDBOX_EGRESS_{name}": "x" for name in env}


def test_the_bootstrap_waits_for_a_certificate_only_if_one_can_come() -> None:
    """Known weakness of opensandbox-server: without a policy the flag costs five minutes."""
    env = {environment.TRANSPARENT: "true"}
    bringer = Sidecar(name="egress", image="e", shares_runtime_dir=True)
    other = Sidecar(name="log", image="l")
    assert environment.TRANSPARENT not in environment.variables(plan(env=env), {})
    assert environment.TRANSPARENT not in environment.variables(plan(env=env, sidecars=[other]), {})
    assert environment.variables(plan(env=env, sidecars=[other, bringer]), {})[environment.TRANSPARENT] == "true"


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0y"}])
def test_variables_that_no_process_can_have(env: dict[str, str]) -> None:
    refused("SANDBOX::INVALID_PARAMETER", env=env)


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (["sleep 600"], ["sleep", "600"]),
        (["echo 'a b' \"c d\""], ["echo", "a b", "c d"]),
        (["sleep 600 # not a comment"], ["sleep", "600", "#", "not", "a", "comment"]),
        ([" sleep"], ["sleep"]),
        (["sleep\t600"], ["sleep\t600"]),
        (["sh", "-c", "sleep 600"], ["sh", "-c", "sleep 600"]),
        (["$(id) *"], ["$(id)", "*"]),
    ],
)
def test_one_word_with_a_space_is_a_command_line(words: list[str], split: list[str]) -> None:
    assert environment.command(words) == split
    environment.check(plan(command=words))


def test_commands_that_are_none() -> None:
    refused("SANDBOX::INVALID_PARAMETER", command=["sleep 'x"])
    refused("SANDBOX::INVALID_PARAMETER", command=["sh", "-c", "a\0b"])
    refused("DOCKER::INVALID_ENTRYPOINT", command=["  "])


def test_what_runs() -> None:
    assert environment.invocation(["a b"], Start.BOOTSTRAP) == {
        "Entrypoint": [environment.BOOTSTRAP],
        "Cmd": ["a", "b"],
    }
    assert environment.invocation(["a b"], Start.PLAIN) == {"Entrypoint": ["a", "b"], "Cmd": []}
    assert environment.invocation(["a b"], Start.OWN) == {"Cmd": ["a", "b"]}


@pytest.mark.needs("docker")
async def test_the_engine_hands_it_over_unchanged() -> None:
    made = plan(env={"ODD": "a=b 'c' $d\nnext", "EMPTY": ""})
    found = environment.variables(made, {"BASE": "b"})
    async with started_engine() as engine:
        config = environment.invocation(["cat /proc/self/environ"], Start.PLAIN)
        printed = await output(engine, [], {}, Env=environment.listed(found), **config)
    seen = dict(entry.split("=", 1) for entry in printed.rstrip("\0").split("\0"))
    assert {name: seen.get(name) for name in found} == found


def refused(code: str, **fields: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        environment.check(plan(**fields))
    assert caught.value.code == code
