"""The parts of a form, however the body is cut into blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_agent.files.multipart import Begin, Data, End, Parser, boundary
from shoal_agent.http.errors import ApiError

Part = tuple[str, str, bytes]


def body(parts: list[Part], line: bytes = b"\r\n", separator: bytes = b"b") -> bytes:
    out = b""
    for name, filename, content in parts:
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'.encode()
        out += b"--" + separator + line + disposition + line + b"Content-Type: x/y" + line * 2 + content + line
    return out + b"--" + separator + b"--" + line


def parse(blocks: list[bytes], separator: bytes = b"b") -> list[Part]:
    parser, parts = Parser(separator), []
    name, filename, content = "", "", b""
    for block in blocks:
        for event in parser.feed(block):
            if isinstance(event, Begin):
                name, filename, content = event.name, event.filename, b""
            elif isinstance(event, Data):
                assert event.data
                content += event.data
            else:
                assert isinstance(event, End)
                parts.append((name, filename, content))
    parser.close()
    return parts


contents = st.lists(
    st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"-", b"--", b"--b", b"\r\n--", b"\r\n--bx", b"\n--b", b"\0\xff"]),
    max_size=12,
).map(b"".join)


@given(
    st.lists(st.tuples(st.sampled_from(["file", "x"]), st.just("f"), contents), max_size=4),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_any_content_in_any_blocks(parts: list[Part], sizes: list[int]) -> None:
    separator = b"bound"
    data = b"preamble\r\n" + body(parts, separator=separator) + b"epilogue"
    blocks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(data[at : at + size])
        at += size
    assert parse(blocks, separator) == parts


def test_a_separator_that_begins_a_longer_word_is_data() -> None:
    parts = [("file", "f", b"\r\n--bx\r\n--b-\r\n--b y\r\n")]
    assert parse([body(parts)]) == parts


def test_bare_line_feeds() -> None:
    parts = [("metadata", "m", b"{}"), ("file", "f", b"x\r\n"), ("file", "g", b"")]
    assert parse([body(parts, line=b"\n")]) == parts


def test_blanks_behind_a_boundary() -> None:
    assert parse([b'--b \t\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b-- ']) == [("a", "", b"x")]


def test_a_part_without_a_head() -> None:
    assert parse([b"--b\r\n\r\nx\r\n--b--"]) == [("", "", b"x")]


@pytest.mark.parametrize(
    ("header", "name", "filename"),
    [
        ('form-data; name="a"; filename="b"', "a", "b"),
        ("form-data; name=a; filename=b", "a", "b"),
        ('FORM-DATA; NAME="a"; FileName="b"', "a", "b"),
        ('form-data; filename="x\\"; name=\\"no"; name="a"', "a", 'x"; name="no'),
        ('form-data; name="a"; filename=""', "a", ""),
        ('form-data; name="a"; filename="é"', "a", "é"),
        ('form-data; name="a";\r\n filename="b"', "a", "b"),
        ('attachment; name="a"', "", ""),
    ],
)
def test_names(header: str, name: str, filename: str) -> None:
    assert parse([f"--b\r\nContent-Disposition: {header}\r\n\r\n\r\n--b--".encode()]) == [(name, filename, b"")]


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"--b\r\n", b"--b\r\nA: b\r\n\r\nx", b"--b\r\nA: b\r\n\r\nx\r\n--b", b"--bx--"]
)
def test_a_body_that_ends_too_early(data: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse([data])
    assert (refused.value.status, refused.value.code) == (400, "INVALID_FILE")


def test_a_head_is_bounded() -> None:
    with pytest.raises(ApiError, match="larger"):
        parse([b"--b\r\n", b"A: " + b"x" * 100_000])


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=x; boundary="a b"', b"a b"),
        ("multipart/form-data;boundary=a;x=y", b"a"),
    ],
)
def test_the_boundary(header: str, found: bytes) -> None:
    assert boundary(header) == found


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "multipart/form-data",
        "multipart/mixed; boundary=b",
        "application/json",
        "multipart/form-data; boundary=" + "x" * 300,
    ],
)
def test_no_boundary(header: str | None) -> None:
    with pytest.raises(ApiError):
        boundary(header)
