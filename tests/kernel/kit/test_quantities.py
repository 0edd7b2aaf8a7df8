"""Quantities: one grammar, Kubernetes' own, and bounds with a message that helps."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.kit import QuantityError, parse_bytes, parse_cores, parse_quantity

SUFFIXES: dict[str, int | str] = {
    "": 1,
    "k": 1000,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "e3": 1000,
    "E-2": "0.01",
}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("100m", "0.1"),
        ("1.5Gi", 1610612736),
        (".5", "0.5"),
        ("1e3", 1000),
        ("+2k", 2000),
        ("0", 0),
        ("1E", 10**18),
    ],
)
def test_quantities(text: str, number: int | str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "1 ", "m", "1MiB", "1K", "-1", "nan", "1e9999", "٣", "1" * 1000, "512mi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError, match="is not a quantity"):
        parse_quantity(text)


@given(st.decimals(min_value=0, max_value=10**9, places=3), st.sampled_from(sorted(SUFFIXES)))
def test_a_suffix_multiplies(number: Decimal, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") == number * Decimal(SUFFIXES[suffix])


@given(st.text(max_size=60))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    try:
        assert parse_quantity(text) >= 0
    except QuantityError as error:
        assert len(str(error)) < 400


def test_bytes_are_whole_and_bounded() -> None:
    assert parse_bytes(" 1.5Ki ") == 1536
    assert parse_bytes("1.1") == 2
    with pytest.raises(QuantityError, match="the 6Mi that a sandbox needs; m is a thousandth, 512Mi is"):
        parse_bytes("512m", least=6 << 20)
    with pytest.raises(QuantityError, match=r"less disk than the 8Mi that a sandbox needs$"):
        parse_bytes("1Mi", least=8 << 20, what="disk")
    with pytest.raises(QuantityError, match="more memory than there can be"):
        parse_bytes("10E")


def test_cores_are_bounded() -> None:
    assert parse_cores("500m") == 0.5
    for text in ("0", "0.5m", "2M"):
        with pytest.raises(QuantityError, match="not a number of CPUs between"):
            parse_cores(text)
