"""Signed routes: the published vectors, and what holds for every route."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_gateway.signing import LATEST, SigningKey, base36, decode_key, signature

MOMENTS = st.integers(0, LATEST)
KEYS = st.builds(SigningKey, st.sampled_from("0az9"), st.binary(min_size=1, max_size=64))


@pytest.mark.parametrize(
    ("key", "sandbox", "port", "expires", "moment", "signed"),
    [
        (SigningKey("a", b"secret-key-bytes"), "my-sandbox", 8080, 2000000000, "x2qxvk", "f7c55e77a"),
        (
            SigningKey("k", bytes(range(32))),
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            44772,
            1893456000,
            "vbbc00",
            "e95d6ce5k",
        ),
    ],
)
def test_the_vectors_of_the_contract(
    key: SigningKey, sandbox: str, port: int, expires: int, moment: str, signed: str
) -> None:
    assert base36(expires) == moment
    assert signature(key, sandbox, port, moment) == signed


@given(MOMENTS)
def test_base_36_is_read_back_and_has_no_leading_zeros(moment: int) -> None:
    text = base36(moment)
    assert int(text, 36) == moment
    assert text == "0" or not text.startswith("0")
    assert len(text) <= 13
    assert text == text.lower()


@given(KEYS, st.integers(1, 65535), MOMENTS)
def test_a_signature_is_nine_characters_that_fit_a_dns_label(key: SigningKey, port: int, moment: int) -> None:
    signed = signature(key, "s", port, base36(moment))
    assert len(signed) == 9
    assert signed[-1] == key.id
    assert set(signed[:-1]) <= set("0123456789abcdef")


@given(KEYS, KEYS, st.tuples(st.integers(1, 65535), MOMENTS), st.tuples(st.integers(1, 65535), MOMENTS))
def test_another_key_port_or_moment_is_another_signature(
    one: SigningKey, other: SigningKey, route: tuple[int, int], elsewhere: tuple[int, int]
) -> None:
    """In 32 bits chance alone could make two equal; hypothesis does not try often enough for that to be seen."""
    same = (one.id, one.secret, route) == (other.id, other.secret, elsewhere)
    signed = signature(one, "s", route[0], base36(route[1]))
    assert (signed == signature(other, "s", elsewhere[0], base36(elsewhere[1]))) == same


@given(st.binary(min_size=1, max_size=64))
def test_a_key_is_read_with_and_without_padding(secret: bytes) -> None:
    padded = base64.b64encode(secret).decode()
    assert decode_key(padded) == decode_key(padded.rstrip("=")) == decode_key(f" {padded}\n") == secret


@pytest.mark.parametrize("text", ["", "=", "  ", "a", "a*b=", "schlüssel", "YQ=a"])
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the key is (empty|not base64)$"):
        decode_key(text)


def test_a_key_does_not_show() -> None:
    assert "hush" not in repr(SigningKey("a", b"hush"))
