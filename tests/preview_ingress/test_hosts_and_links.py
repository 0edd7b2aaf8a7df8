"""Names of preview hosts, their signatures, and the key behind them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert

from shoal.errors import ConfigError
from shoal_preview import keyfile
from shoal_preview.config import PreviewSettings
from shoal_preview.hosts import PreviewTarget, bare, parse
from shoal_preview.links import LATEST, Signer

ID = "2f0e6a52-5d5e-4c53-9a3b-1f6a8f1c0d11"
SIGNER = Signer(b"k" * 32)
PORTS = st.integers(1, 65535)
IDS = st.uuids(version=4).map(str)
MOMENTS = st.integers(1, LATEST)


@given(IDS, PORTS)
def test_a_plain_name_is_read_back(sandbox_id: str, port: int) -> None:
    assert parse(str(PreviewTarget(port, sandbox_id))) == PreviewTarget(port, sandbox_id)


@given(IDS, PORTS, MOMENTS)
def test_a_signed_name_is_read_back_fits_a_dns_label_and_holds(sandbox_id: str, port: int, moment: int) -> None:
    place = SIGNER.sign(sandbox_id, port, moment)
    assert len(str(place)) <= 63
    read = parse(str(place))
    assert read == place
    assert read.moment is not None
    assert int(read.moment, 36) == moment
    assert SIGNER.vouches_for(read)


@given(IDS, PORTS, MOMENTS, st.data())
def test_no_part_of_a_signed_name_can_be_exchanged(
    sandbox_id: str, port: int, moment: int, data: st.DataObject
) -> None:
    place = SIGNER.sign(sandbox_id, port, moment)
    other = SIGNER.sign(data.draw(IDS), data.draw(PORTS), data.draw(MOMENTS))
    forged = place._replace(signature=other.signature)
    assert SIGNER.vouches_for(forged) == (forged == place)
    assert not SIGNER.vouches_for(place._replace(port=port % 65535 + 1))
    assert not Signer(b"another key, of the same form....").vouches_for(place)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "api",
        ID,
        f"0-{ID}",
        f"08080-{ID}",
        f"65536-{ID}",
        f"8080-{ID[:-1]}",
        f"8080-{ID}x",
        f"8080-{ID}-zz",
        f"8080-{ID}-zz-short",
        f"8080-{ID}-0zz-aaaaaaaaaaaa",
        f"8080-{ID}-zzzzzzzz-aaaaaaaaaaaa",
        f"8080-{ID}.x",
        f"-8080-{ID}",
        f"8080-{ID}\n",
    ],
)
def test_other_labels_name_nothing(label: str) -> None:
    assert parse(label) is None


@pytest.mark.parametrize("host", ["A.Example.COM", "a.example.com.", "a.example.com:8080", "A.EXAMPLE.COM.:80"])
def test_port_case_and_final_dot_of_a_host_do_not_count(host: str) -> None:
    assert bare(host) == "a.example.com"


@pytest.mark.parametrize("domain", ["example.com", " Preview.Example.com:8443 ", "localhost"])
def test_domains(domain: str) -> None:
    assert convert({"domain": domain}, PreviewSettings).domain == domain.strip().lower()


@pytest.mark.parametrize(
    "domain", ["", " ", "*.example.com", "https://example.com", "a..b", "example.com/x", "x" * 200]
)
def test_what_is_no_domain(domain: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        convert({"domain": domain}, PreviewSettings)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "links"
    mask = os.umask(0)
    try:
        key = keyfile.read_or_make(path)
    finally:
        os.umask(mask)
    assert keyfile.read_or_make(path) == key
    assert len(key) == 43
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"short", b" " * 40])
def test_a_key_that_is_too_short_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="at least 32 characters"):
        keyfile.read(path)


def test_a_key_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        keyfile.read(tmp_path / "none")
