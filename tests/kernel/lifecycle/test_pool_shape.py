"""What a template means, and which creates fit it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.kernel.lifecycle.fakes import request

from shoal.errors import InvalidRequest, ValidationFailed
from shoal.lifecycle.pools.shape import fingerprint, misfit, understand
from shoal.models.create import SandboxSpec, parse_create
from shoal.models.requests import CreateSandbox, ImageAuth, ImageSpec, PlatformSpec
from shoal.models.secret import Secret

TEMPLATE: dict[str, Any] = {
    "image": {"uri": "busybox", "auth": {"username": "robot", "password": "registry-password"}},
    "entrypoint": ["sleep", "1"],
    "env": {"TOKEN": "env-secret"},
    "resourceLimits": {"cpu": "1"},
}


def spec(**changes: Any) -> SandboxSpec:
    return parse_create(request(**changes))


def pod(**changes: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sleep"], "args": ["1"], **changes}
    return {"metadata": {}, "spec": {"containers": [container]}}


def test_a_template_is_what_a_create_of_the_same_fields_is() -> None:
    same = request(
        image=ImageSpec(uri=" busybox ", auth=ImageAuth(username="another", password=Secret("x"))),
        env={"TOKEN": "env-secret"},
        resource_limits={"cpu": "1"},
        timeout=600,
        metadata={"a": "b"},
        extensions={"access.renew.extend.seconds": "300", "opensandbox.extensions.x": "y", "runtime": "memory"},
    )
    assert understand(TEMPLATE).fingerprint == fingerprint(parse_create(same))


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"TOKEN": "other"}},
        {"env": None},
        {"resource_limits": {"cpu": "2"}},
        {"entrypoint": ["sleep", "2"]},
        {"platform": PlatformSpec(os="linux", arch="arm64")},
        {"secure_access": True},
        {"extensions": {"bootstrap.execd.isolation": "enable"}},
    ],
)
def test_anything_else_is_another_shape(changes: dict[str, Any]) -> None:
    same: dict[str, Any] = {
        "image": ImageSpec(uri="busybox"),
        "env": {"TOKEN": "env-secret"},
        "resource_limits": {"cpu": "1"},
    }
    assert fingerprint(spec(**same)) == understand(TEMPLATE).fingerprint
    assert fingerprint(spec(**{**same, **changes})) != understand(TEMPLATE).fingerprint
    if "env" not in changes:  # that alone can be given to a new member
        assert misfit(spec(**{**same, **changes}), understand(TEMPLATE)) is not None


def test_what_is_left_out_or_empty_fits() -> None:
    shape = understand(TEMPLATE)
    assert misfit(parse_create(CreateSandbox()), shape) is None
    assert (
        misfit(parse_create(CreateSandbox(resource_limits={}, env={}, volumes=[], metadata={"a": "b"})), shape) is None
    )


def test_a_pod_template_of_one_plain_container() -> None:
    shape = understand(pod(env=[{"name": "A", "value": "1"}], resources={"limits": {"cpu": 2}, "requests": {}}))
    made = shape.spec
    assert made.image is not None
    assert (made.image.uri, made.entrypoint, made.env) == ("busybox", ["sleep", "1"], {"A": "1"})
    assert made.resource_limits == {"cpu": "2"}


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"spec": {"containers": []}}, "spec.containers"),
        ({"spec": {"containers": [{}, {}]}}, "spec.containers"),
        ({"spec": {"containers": [{"image": "a"}], "volumes": []}}, "spec.volumes"),
        ({"spec": {"initContainers": []}}, "spec"),
        (pod(securityContext={"privileged": True}), "securityContext"),
        (pod(env=[{"name": "A", "valueFrom": {}}]), "env"),
        (pod(env=["A"]), "env"),
        (pod(env=5), "env"),
        (pod(command="sleep"), "command"),
        (pod(args=7), "args"),
        (pod(image=7), "image"),
        (pod(resources={"limits": {"cpu": [1]}}), "limits"),
        ({**TEMPLATE, "imagePullPolicy": "Always"}, "imagePullPolicy"),
        ({**TEMPLATE, "timeout": 60}, "timeout"),
        ({**TEMPLATE, "metadata": {}}, "metadata"),
        ({**TEMPLATE, "templateId": "t"}, "templateId"),
        ({**TEMPLATE, "extensions": {"poolRef": "p"}}, "poolRef"),
        ({**TEMPLATE, "extensions": {"access.x": "p"}}, "access.x"),
        ({**TEMPLATE, "image": 5}, "image"),
        ({**TEMPLATE, "volumes": [{"name": 7}]}, "volumes"),
    ],
)
def test_refused_with_the_name_of_the_field_and_no_value(template: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        understand(template)
    assert named in refused.value.message
    assert "secret" not in refused.value.message
    assert "registry-password" not in refused.value.message


@pytest.mark.parametrize("field", ["image", "entrypoint"])
def test_what_a_create_needs_a_template_needs(field: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        understand({key: value for key, value in TEMPLATE.items() if key != field})
    assert [problem.loc for problem in refused.value.problems] == [["body", "template", field]]


def test_a_shape_shows_no_secrets() -> None:
    assert "secret" not in repr(understand(TEMPLATE))
