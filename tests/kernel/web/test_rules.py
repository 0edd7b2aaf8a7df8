"""The rules on a create request and a metadata patch that types cannot say (docs/wire/api.md sections 6 and 7)."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidRequest
from shoal.models.create import normalize_platform, parse_create
from shoal.models.labels import check_metadata_patch
from shoal.models.requests import CreateSandbox, PlatformSpec
from shoal.models.rules import normalize_create, schema_problems
from shoal.models.secret import decode_hook

WHOLE: dict[str, Any] = {"image": {"uri": "host"}, "entrypoint": ["sleep"], "resourceLimits": {}}


def request(**changes: Any) -> CreateSandbox:
    """A create that breaks no rule, with changes; None leaves a field out."""
    fields = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    return msgspec.convert(fields, CreateSandbox, dec_hook=decode_hook)


def found(**changes: Any) -> list[str]:
    return [".".join(str(part) for part in problem.loc[1:]) for problem in schema_problems(request(**changes))]


def refusal(**changes: Any) -> str | None:
    longest = changes.pop("maximum", None)
    try:
        parse_create(request(**changes), longest_timeout=longest)
    except InvalidRequest as error:
        return error.code
    return None


def volume(**changes: Any) -> dict[str, Any]:
    return {"name": "data", "mountPath": "/data", "host": {"path": "/srv/data"}, **changes}


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"image": None}, ["image"]),
        ({"image": {"uri": " "}}, ["image"]),
        ({"image": {"uri": " "}, "snapshotId": "s", "entrypoint": None}, []),
        ({"snapshotId": "s"}, ["image"]),
        ({"snapshotId": "  "}, []),
        ({"entrypoint": None}, ["entrypoint"]),
        ({"resourceLimits": None}, ["resourceLimits"]),
        ({"image": None, "resourceLimits": None}, ["image", "resourceLimits"]),
        ({"image": None, "snapshotId": "s", "resourceLimits": None}, ["resourceLimits"]),
        ({"credentialProxy": {"enabled": True}}, ["credentialProxy"]),
        ({"credentialProxy": {"enabled": False}}, []),
        ({"credentialProxy": {"enabled": True}, "networkPolicy": {}}, []),
        ({"extensions": {"poolRef": "p"}, "image": None, "entrypoint": None, "resourceLimits": None}, []),
        ({"extensions": {"poolRef": "p"}, "lifecycle": {}, "snapshotId": "s"}, ["lifecycle", "snapshotId"]),
        ({"extensions": {"poolRef": " "}, "resourceLimits": None}, ["resourceLimits"]),
        ({"templateId": "t"}, ["image", "entrypoint", "resourceLimits", "timeout"]),
        ({"templateId": " "}, []),
        (
            {"templateId": "t", "timeout": 60, "image": None, "entrypoint": None, "resourceLimits": None, "env": {}},
            ["env"],
        ),
        (
            {"templateId": "t", "timeout": 60, "image": None, "entrypoint": None, "resourceLimits": None}
            | {"secureAccess": False, "metadata": {}, "networkPolicy": {}},
            [],
        ),
        ({"env": {"OPENSANDBOX_LIFECYCLE": "x"}}, ["env.OPENSANDBOX_LIFECYCLE"]),
        ({"volumes": [volume()]}, []),
        ({"volumes": [volume(host=None)]}, ["volumes.0"]),
        ({"volumes": [volume(), volume(pvc={"claimName": "c"})]}, ["volumes.1"]),
        ({"volumes": [volume(name="data\n")]}, ["volumes.0.name"]),
        (
            {"volumes": [volume(host=None, ossfs={"bucket": "abc", "endpoint": "e", "accessKeySecret": ""})]},
            ["volumes.0.ossfs.accessKeyId", "volumes.0.ossfs.accessKeySecret"],
        ),
        ({"lifecycle": {"preStart": {"command": [" "]}}}, ["lifecycle.preStart.command.0"]),
        (
            {
                "lifecycle": {
                    "periodic": [{"name": n, "schedule": s, "command": ["x"]} for n, s in (("a", "*"), (" a", " "))]
                }
            },
            ["lifecycle.periodic.1.schedule", "lifecycle.periodic.1.name"],
        ),
    ],
)
def test_schema(changes: dict[str, Any], problems: list[str]) -> None:
    assert found(**changes) == problems


def test_tidied() -> None:
    hooks = {"periodic": [{"name": " a ", "schedule": " * ", "command": [" x "]}]}
    tidy = normalize_create(request(snapshotId=" ", templateId=" ", lifecycle=hooks))
    assert (tidy.snapshot_id, tidy.template_id) == (None, None)
    assert tidy.lifecycle is not None
    assert tidy.lifecycle.periodic is not None
    assert (tidy.lifecycle.periodic[0].name, tidy.lifecycle.periodic[0].schedule) == ("a", "*")
    assert normalize_create(request(image={"uri": " "}, snapshotId="s")).image is None


@pytest.mark.parametrize("value", ["300", " 86400 ", "+300", "1_000"])
def test_renewal_extension_fits(value: str) -> None:
    assert refusal(extensions={"access.renew.extend.seconds": value}) is None


@pytest.mark.parametrize("value", ["", "299", "86401", "-300", "3e2", "300.0", "five", "9" * 5000])
def test_renewal_extension_does_not_fit(value: str) -> None:
    assert refusal(extensions={"access.renew.extend.seconds": value}) == "SANDBOX::INVALID_PARAMETER"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"timeout": 60, "maximum": 60}, None),
        ({"timeout": 61, "maximum": 60}, "SANDBOX::INVALID_PARAMETER"),
        ({"timeout": 10**30}, "SANDBOX::INVALID_PARAMETER"),
        ({"platform": {"os": " Linux ", "arch": "AMD64"}}, None),
        ({"platform": {"os": "plan9", "arch": "amd64"}}, "SANDBOX::INVALID_PARAMETER"),
        ({"env": {"OPENSANDBOX_EGRESS_LOG_LEVEL": "debug", "OPENSANDBOX_OTHER": None}}, None),
        ({"env": {"OPENSANDBOX_EGRESS_TOKEN": "x"}}, "SANDBOX::INVALID_PARAMETER"),
        ({"volumes": [volume(), volume()]}, "VOLUME::DUPLICATE_NAME"),
        ({"volumes": [volume(subPath="/etc")]}, "VOLUME::INVALID_SUB_PATH"),
        ({"volumes": [volume(subPath="a/../b")]}, "VOLUME::INVALID_SUB_PATH"),
        ({"volumes": [volume(subPath="a/..b/c")]}, None),
        ({"volumes": [volume(host={"path": "/srv/../etc"})]}, "VOLUME::INVALID_HOST_PATH"),
        ({"volumes": [volume(host={"path": "/srv//x"})]}, "VOLUME::INVALID_HOST_PATH"),
        ({"volumes": [volume(host={"path": "/srv/"})]}, "VOLUME::INVALID_HOST_PATH"),
        ({"volumes": [volume(host={"path": "C:\\data\\x"})]}, None),
        ({"volumes": [volume(), volume(name="other", mountPath="/data/x")]}, None),
        ({"volumes": [volume(), volume(name="other", mountPath="//data/./")]}, "SANDBOX::INVALID_PARAMETER"),
        ({"volumes": [volume(mountPath="/opt/opensandbox")]}, "SANDBOX::INVALID_PARAMETER"),
        ({"volumes": [volume(mountPath="/opt//x/../opensandbox/y")]}, "SANDBOX::INVALID_PARAMETER"),
        ({"volumes": [volume(mountPath="/opt/opensandbox2")]}, None),
        ({"entrypoint": ["sleep 60"]}, None),
        ({"entrypoint": ["sleep 'x"]}, "SANDBOX::INVALID_PARAMETER"),
        ({"entrypoint": ["  "]}, "DOCKER::INVALID_ENTRYPOINT"),
        ({"metadata": {"a/b": "1", "opensandbox.io/x": "1"}}, "SANDBOX::INVALID_METADATA_LABEL"),
    ],
)
def test_beyond_the_schema(changes: dict[str, Any], code: str | None) -> None:
    assert refusal(**changes) == code


def test_the_renewal_extension_is_judged_first() -> None:
    with pytest.raises(InvalidRequest, match=r"access\.renew"):
        parse_create(request(extensions={"access.renew.extend.seconds": "1"}, metadata={"-": ""}, timeout=10**30))


LETTERS = string.ascii_letters + string.digits
names = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
prefixes = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]{1,20}){0,3}", fullmatch=True)


@given(name=names, prefix=st.none() | prefixes, value=st.just("") | names)
def test_labels_that_kubernetes_takes(name: str, prefix: str | None, value: str) -> None:
    key = name if prefix is None else f"{prefix}/{name}"
    if prefix != "opensandbox.io":
        check_metadata_patch({key: value})
        assert refusal(metadata={key: value}) is None


@given(key=st.text(max_size=70), value=st.text(max_size=70))
def test_other_labels_are_refused_without_their_value(key: str, value: str) -> None:
    def plain(text: str) -> bool:
        ends = text and text[0] in LETTERS and text[-1] in LETTERS
        return bool(ends) and len(text) <= 63 and set(text) <= set(LETTERS + "-_.")

    fits = plain(key) and (value == "" or plain(value))
    if "/" not in key:
        code = refusal(metadata={key: value})
        assert code == (None if fits else "SANDBOX::INVALID_METADATA_LABEL")


def test_patch_may_not_touch_reserved_keys_even_to_delete() -> None:
    with pytest.raises(InvalidRequest) as error:
        check_metadata_patch({"-bad": "x", "opensandbox.io/id": None})
    assert error.value.code == "INVALID_METADATA_LABEL"
    with pytest.raises(InvalidRequest) as error:
        check_metadata_patch({"-bad": "x"})
    assert error.value.code == "SANDBOX::INVALID_METADATA_LABEL"
    check_metadata_patch({"-bad": None})


@given(
    os=st.sampled_from(["linux", " Windows ", "LINUX"]) | st.text(max_size=8),
    arch=st.sampled_from(["amd64", "ARM64\n"]) | st.text(max_size=8),
)
def test_platforms(os: str, arch: str) -> None:
    known = os.strip().lower() in ("linux", "windows") and arch.strip().lower() in ("amd64", "arm64")
    if known:
        normal = normalize_platform(PlatformSpec(os=os, arch=arch))
        assert (normal.os, normal.arch) == (os.strip().lower(), arch.strip().lower())
    else:
        with pytest.raises(InvalidRequest):
            normalize_platform(PlatformSpec(os=os, arch=arch))
