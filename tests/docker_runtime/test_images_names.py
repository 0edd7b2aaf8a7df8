"""What image references mean, and which text is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidRequest
from shoal_docker.images.names import Name, parse

D = "sha256:" + "0a" * 32
MEANINGS = {
    "busybox": ("docker.io/library/busybox", "latest", "", "busybox:latest"),
    " busybox:1.36 ": ("docker.io/library/busybox", "1.36", "", "busybox:1.36"),
    "docker.io/busybox": ("docker.io/library/busybox", "latest", "", "busybox:latest"),
    "index.docker.io/library/busybox": ("docker.io/library/busybox", "latest", "", "busybox:latest"),
    "some/thing:A_b-c.d": ("docker.io/some/thing", "A_b-c.d", "", "some/thing:A_b-c.d"),
    "localhost/x": ("localhost/x", "latest", "", "localhost/x:latest"),
    "HOST/x": ("HOST/x", "latest", "", "HOST/x:latest"),
    "127.0.0.1:5055/private/busybox": ("127.0.0.1:5055/private/busybox", "latest", "", None),
    "[fd00::1]:5000/x:y": ("[fd00::1]:5000/x", "y", "", None),
    "ghcr.io/a/b/c__d@" + D: ("ghcr.io/a/b/c__d", "", D, "ghcr.io/a/b/c__d@" + D),
    "busybox:1.36@" + D: ("docker.io/library/busybox", "", D, "busybox@" + D),
    "0a" * 32: ("", "", D, D),
    D: ("", "", D, D),
}
NONE = [
    "",
    " ",
    "UPPER",
    "a//b",
    "/a",
    "a/",
    "a:",
    "a:b:c",
    "a b",
    "a@",
    "a@sha256:12",
    "-a",
    "a:-b",
    "x.y/",
    "a" * 256,
    "a:" + "b" * 129,
    "host:port/x",
    "http://host/x",
    "../x",
    "a\n",
    "a@" + D + "@" + D,
]


@pytest.mark.parametrize(("text", "meaning"), MEANINGS.items())
def test_meanings(text: str, meaning: tuple[str, str, str, str | None]) -> None:
    name = parse(text)
    assert (name.repository, name.tag, name.digest) == meaning[:3]
    assert meaning[3] is None or str(name) == meaning[3]


@pytest.mark.parametrize("text", [text for text in NONE if text != "a\n"])
def test_no_reference(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"image\.uri") as caught:
        parse(text)
    assert caught.value.code == "SANDBOX::INVALID_PARAMETER"


def test_official() -> None:
    assert parse("busybox").is_official
    assert not parse("some/thing").is_official
    assert not parse("evil.example/library/busybox").is_official


@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9.:/@_-]{1,60}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        name = parse(text)
    except InvalidRequest:
        return
    assert isinstance(name, Name)
    assert parse(str(name)) == name
