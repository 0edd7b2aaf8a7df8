"""The rules on the sidecars of a create: what is refused, with which status, before anything is done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shoal.errors import InvalidRequest, ValidationFailed
from shoal.http.parse import BodyDecoder
from shoal.models.create import parse_create
from shoal.models.plan import Sidecar
from shoal.models.requests import CreateSandbox
from shoal.models.rules import schema_problems
from shoal.models.secret import decode_hook
from shoal.models.sidecars import MAX_PORTS, MAX_SIDECARS, check_neighbours

BODY: BodyDecoder[CreateSandbox] = BodyDecoder(CreateSandbox)


def sidecar(name: str = "db", **changes: Any) -> dict[str, Any]:
    return {"name": name, "image": {"uri": "postgres:17"}, **changes}


def whole(*sidecars: dict[str, Any], **changes: Any) -> dict[str, Any]:
    base = {"image": {"uri": "host"}, "entrypoint": ["sleep"], "resourceLimits": {}, "sidecars": list(sidecars)}
    return {**base, **changes}


def request(*sidecars: dict[str, Any], **changes: Any) -> CreateSandbox:
    return msgspec.convert(whole(*sidecars, **changes), CreateSandbox, dec_hook=decode_hook)


def found(*sidecars: dict[str, Any], **changes: Any) -> list[str]:
    return [".".join(map(str, problem.loc[1:])) for problem in schema_problems(request(*sidecars, **changes))]


def test_a_full_sidecar_breaks_no_rule() -> None:
    full = sidecar(
        image={"uri": "r.example/db", "auth": {"username": "u", "password": "p"}},
        command=["db", "--fast"],
        env={"A": "", "B": "x=y"},
        ports=[5432, 65535],
        resourceLimits={"cpu": "1"},
    )
    assert found(full, sidecar("cache", ports=[6379])) == []
    parse_create(request(full, sidecar("cache", ports=[6379])))


@pytest.mark.parametrize(
    ("sidecars", "problems"),
    [
        ([sidecar("a"), sidecar("b"), sidecar("a")], ["sidecars.2.name"]),
        ([sidecar("db\n")], ["sidecars.0.name"]),
        ([sidecar(image={"uri": " "})], ["sidecars.0.image.uri"]),
        ([sidecar(command=[" "])], ["sidecars.0.command.0"]),
        ([sidecar(env={"": "x"})], ["sidecars.0.env"]),
        ([sidecar(env={"A=B": "x"})], ["sidecars.0.env"]),
        ([sidecar(ports=[80, 80])], ["sidecars.0.ports.1"]),
        ([sidecar("a", ports=[80]), sidecar("b", ports=[81, 80])], ["sidecars.1.ports.1"]),
        ([sidecar(f"s{n}") for n in range(MAX_SIDECARS)], []),
        ([sidecar(f"s{n}") for n in range(MAX_SIDECARS + 1)], ["sidecars"]),
        ([sidecar(ports=list(range(1, MAX_PORTS + 1)))], []),
        ([sidecar(ports=list(range(1, MAX_PORTS + 2)))], ["sidecars"]),
    ],
)
def test_what_the_schema_refuses(sidecars: list[dict[str, Any]], problems: list[str]) -> None:
    assert found(*sidecars) == problems


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (sidecar("Db"), ["sidecars", 0, "name"]),
        (sidecar("d" * 64), ["sidecars", 0, "name"]),
        (sidecar(ports=[0]), ["sidecars", 0, "ports", 0]),
        (sidecar(ports=[65536]), ["sidecars", 0, "ports", 0]),
        (sidecar(ports=["x"]), ["sidecars", 0, "ports", 0]),
        (sidecar(command=[]), ["sidecars", 0, "command"]),
        (sidecar(env={"A": None}), ["sidecars", 0, "env", "A"]),
        (sidecar(image="postgres"), ["sidecars", 0, "image"]),
        (sidecar(trusted=True), ["sidecars", 0, "trusted"]),
        (sidecar(capabilities=["SYS_ADMIN"]), ["sidecars", 0, "capabilities"]),
        ({"name": "db"}, ["sidecars", 0, "image"]),
    ],
)
def test_what_the_types_refuse(wrong: dict[str, Any], where: list[str | int]) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        BODY.parse(msgspec.json.encode(whole(wrong)))
    assert [problem.loc for problem in refusal.value.problems] == [["body", *where]]


@pytest.mark.parametrize(
    "wrong", [sidecar("egress"), sidecar("sandbox"), sidecar("execd-installer"), sidecar(ports=[44772])]
)
def test_names_and_ports_of_the_servers_own_containers_are_reserved(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_create(request(wrong))
    assert refusal.value.code == "SANDBOX::INVALID_PARAMETER"


def test_a_template_has_no_sidecars() -> None:
    template = {"image": None, "entrypoint": None, "resourceLimits": None, "templateId": "t", "timeout": 60}
    assert found(sidecar(), **template) == ["sidecars"]


def test_a_callers_sidecar_does_not_take_the_place_of_the_servers() -> None:
    check_neighbours([Sidecar(name="mesh", image="m", ports=[15000]), Sidecar(name="db", image="d", ports=[5432])])
    for name, port in (("mesh", 1), ("db", 15000)):
        with pytest.raises(InvalidRequest):
            check_neighbours(
                [Sidecar(name="mesh", image="m", ports=[15000]), Sidecar(name=name, image="d", ports=[port])]
            )


def test_a_sidecar_keeps_its_secrets_to_itself() -> None:
    secret = sidecar(image={"uri": "db", "auth": {"username": "u", "password": "s3cret"}}, env={"PASSWORD": "hidden"})
    assert "s3cret" not in repr(request(secret))
    assert "hidden" not in repr(Sidecar(name="db", image="d", env={"PASSWORD": "hidden"}))
