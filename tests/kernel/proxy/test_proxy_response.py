"""An upstream's bytes, however they are cut up, mean one answer or none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.proxy.failures import FramingError
from shoal.proxy.response import MAX_HEAD_BYTES, ResponseParser

BODY = bytes(range(256)) * 3
CHUNKED = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(c), c) for c in (BODY[:5], BODY[5:300], BODY[300:]))
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\nX: 1\r\nX: 2\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nX: 1\r\nX: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKED
    + b"0\r\nT: 1\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\nX: 1\r\nX: 2\r\n\r\n" + BODY,
    "until close": b"HTTP/1.1 200 OK\r\nX: 1\r\nX: 2\r\n\r\n" + BODY,
    "lone line feeds": b"HTTP/1.1 200 OK\nContent-Length: 768\nX: 1\nX: 2\n\n" + BODY,
}
CUTS = st.lists(st.integers(1, 900), max_size=12)


def feed(parser: ResponseParser, data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(edges):
        parser.feed(data[start:end])


@pytest.mark.parametrize("kind", ANSWERS)
@given(cuts=CUTS)
def test_however_it_is_cut(kind: str, cuts: list[int]) -> None:
    parser = ResponseParser()
    for _ in range(2 if kind != "until close" else 1):  # the second one over the same connection
        parser.begin()
        feed(parser, ANSWERS[kind], cuts)
        assert parser.eof()
        assert parser.head is not None
        assert parser.head.status == 200
        assert [value for name, value in parser.head.headers if name == b"x"] == [b"1", b"2"]
        assert parser.take() == BODY
        assert (parser.parts, parser.buffered) == ([], 0)
        assert parser.keep_alive is (kind != "until close")
        assert parser.continued is (kind == "interim")


@pytest.mark.parametrize("kind", ["length", "chunked"])
@given(end=st.integers(0, 760))
def test_an_answer_cut_short_has_no_end(kind: str, end: int) -> None:
    parser = ResponseParser()
    parser.feed(ANSWERS[kind][:end])
    assert not parser.eof()


@pytest.mark.parametrize("kind", ["length", "chunked", "interim"])
@given(cuts=CUTS, surplus=st.binary(min_size=1, max_size=20).filter(lambda data: data.strip(b"\r\n") != b""))
def test_more_than_was_asked_for_spoils_the_connection_not_the_answer(
    kind: str, cuts: list[int], surplus: bytes
) -> None:
    parser = ResponseParser()
    feed(parser, ANSWERS[kind] + surplus, cuts)
    assert parser.complete
    assert parser.take() == BODY
    assert not parser.keep_alive


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_no_body_after_head(head: bytes) -> None:
    parser = ResponseParser()
    for _ in range(2):
        parser.begin(headless=True)
        parser.feed(head)
        assert (parser.complete, parser.keep_alive, parser.parts) == (True, True, [])


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_whether_another_request_may_follow(data: bytes, keep_alive: bool) -> None:
    parser = ResponseParser()
    parser.feed(data)
    assert (parser.complete, parser.keep_alive) == (True, keep_alive)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b'HTTP/1.1 200 OK\r\n"x": a\r\n\r\n',
    ],
)
def test_what_is_not_one_plain_answer_is_none(data: bytes) -> None:
    with pytest.raises(FramingError):
        ResponseParser().feed(data)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6 + 1) + b"\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: ", *[b"y" * 1000] * 70],
        [b"HTTP/1.1 200 " + b"O" * 70_000],
        [b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"] * (MAX_HEAD_BYTES // 4),
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", *[b"y" * 1000] * 70],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", *[b"X: y\r\n" * 1000] * 20],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", *[b"y" * 1000] * 70],
    ],
    ids=["headers", "value", "reason", "interim", "trailer", "trailers", "chunk extension"],
)
def test_heads_and_trailers_are_bounded(pieces: list[bytes]) -> None:
    parser = ResponseParser()

    def feed_all() -> None:
        for piece in pieces:
            parser.feed(piece)

    with pytest.raises(FramingError):
        feed_all()


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_a_framing_error(data: bytes) -> None:
    parser = ResponseParser()
    try:
        parser.feed(b"HTTP/1.1 200 OK\r\n" + data)
    except FramingError:
        return
    for name, value in parser.head.headers if parser.head else []:
        assert not set(name + value) & set(b"\r\n\0")
