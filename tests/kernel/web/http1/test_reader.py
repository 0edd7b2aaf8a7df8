"""Bytes to requests: the same result however they are cut, and none that another strict parser would read otherwise."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoal.errors import HeadTooLarge, InvalidRequest, NotSupported, ShoalError
from shoal.web.http1.head import Head
from shoal.web.http1.limits import ConnectionLimits
from shoal.web.http1.reader import RequestReader

SMALL = ConnectionLimits(head_bytes=256, head_fields=6)

Read = list[Any]
"""Heads and whole bodies in turn; a ShoalError's code last, if there was one."""


def read(packets: list[bytes], limits: ConnectionLimits = SMALL) -> Read:
    """What the packets amount to."""
    reader, body, within = RequestReader(limits), b"", False
    found: Read = []
    for packet in packets:
        reader.feed(packet)
        try:
            while True:
                if not within:
                    head = reader.head()
                    if head is None:
                        break
                    found.append(head)
                    within, body = True, b""
                while (piece := reader.body()) or reader.pending:
                    body += piece
                if not reader.exhausted:
                    break
                found.append(body)
                within = False
        except ShoalError as error:
            return [*found, *([body] if within else []), error.code]
    return [*found, *([body] if within else [])]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    packets, position = [], 0
    for size in sizes:
        packets.append(data[position : position + size])
        position += size
    return [packet for packet in [*packets, data[position:]] if packet]


LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /a?b HTTP/1.1",
        b"PUT http://h:1/x? HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET / HTTP/1.0",
        b"get / HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"",
    ]
)
FIELDS = st.sampled_from(
    [
        b"Host: a",
        b"Host: b",
        b"Content-Length: 3",
        b"Content-Length: 4",
        b"Content-Length: 3, 3",
        b"Content-Length: +3",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: close",
        b"X: y ",
        b"X : y",
        b" folded",
        b"X: a\rb",
        b"X: a\nb",
        b"X:",
        b"X: " + b"z" * 200,
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;x=y\r\nabc\r\n0\r\nHost: evil\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"10000000000000000\r\nabc\r\n0\r\n\r\n",
        b"1;" + b"e" * 300 + b"\r\na\r\n0\r\n\r\n",
        b"1;" + b"e" * 100 + b"\r\na\r\n" + b"1;" + b"e" * 100 + b"\r\na\r\n" + b"1;" + b"e" * 200 + b"\r\na\r\n",
        b"1\r\na\r\n" * 400 + b"0\r\n\r\n",
        b"0\r\n" + b"t: x\r\n" * 9 + b"\r\n",
        b"0\r\nt: " + b"x" * 300 + b"\r\n\r\n",
        b"0\r\nno trailer\r\n\r\n",
    ]
)
TERMINATORS = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One request, right or wrong."""
    lines = [draw(LINES), b"Host: a", *draw(st.lists(FIELDS, max_size=4))]
    head = b"".join(line + draw(TERMINATORS) for line in [*lines, b""])
    return draw(st.sampled_from([b"", b"", b"\r\n", b"\r\n" * 5])) + head + draw(BODIES)


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@settings(deadline=None)
@given(st.lists(messages(), min_size=1, max_size=3).map(b"".join), st.lists(st.integers(1, 40), max_size=60))
@example(CHUNKED + b"1\r\na\r\n" * 400 + b"0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [])
@example(b"\r", [])
def test_packets_do_not_matter(data: bytes, sizes: list[int]) -> None:
    whole = read([data])
    assert read(cut(data, sizes)) == whole
    assert read([data[index : index + 1] for index in range(len(data))]) == whole


class Strict:
    """The first request as llhttp reads it."""

    def __init__(self) -> None:
        self.url, self.body = b"", b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.in_body = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_body = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        raise StopIteration


VALID = st.sampled_from(
    [
        b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y z\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.0\r\n\r\n",
        CHUNKED + b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n",
    ]
)
ODD = st.sampled_from([bytes([number]) for number in b"\0\t\n\r :;,+-0a_\x0b\x7f\x80"] + [b"\r\n", b""])


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A valid request with up to two bytes that are not as they were."""
    data = draw(VALID)
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.integers(0, len(data) - 1))
        data = data[:index] + draw(ODD) + data[index + draw(st.integers(0, 1)) :]
    return data


@settings(max_examples=1000, deadline=None)
@given(mutants())
def test_what_is_accepted_is_what_a_strict_parser_reads(data: bytes) -> None:
    found = read([data + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"], ConnectionLimits())
    if len(found) != 4 or (found[2].method, found[2].target) != ("GET", b"/next"):
        return  # not whole, or refused
    head, body = found[:2]
    told = Strict()
    parser = httptools.HttpRequestParser(told)
    try:
        parser.feed_data(data)
    except httptools.HttpParserCallbackError:
        pass  # the end of the message
    except httptools.HttpParserInvalidMethodError:
        return  # llhttp knows a list of methods; any name in capitals is one here
    except httptools.HttpParserError as error:
        if "chunk extensions" in str(error):
            return  # white space in them, which RFC 9112 section 7.1.1 allows; they are dropped
        raise AssertionError(f"llhttp refuses it: {error}") from error
    assert (told.url, told.headers, told.body) == (head.target, head.headers, body)


def request(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([*lines, b"", b""]) + body


@pytest.mark.parametrize(
    "data",
    [
        request(b"GET / HTTP/1.1"),
        request(b"GET / HTTP/1.1", b"Host: a", b"Host: a"),
        request(b"GET / HTTP/1.1", b"Host:"),
        request(b"GET / HTTP/1.1", b"Host: a b"),
        request(b"GET / HTTP/1.1", b"Host: a/b"),
        request(b"GET / HTTP/1.1", b"Host: user@a"),
        request(b"GET / HTTP/1.1", b"Host: a:b"),
        request(b"GET / HTTP/1.0", b"Host: a", b"Host: b"),
        request(b"GET http://b/ HTTP/1.1"),
        request(b"GET http://u@b/ HTTP/1.1", b"Host: a"),
        request(b"GET http:///x HTTP/1.1", b"Host: a"),
        request(b"GET ftp://b/ HTTP/1.1", b"Host: a"),
        request(b"GET * HTTP/1.1", b"Host: a"),
        request(b"CONNECT a:443 HTTP/1.1", b"Host: a"),
        request(b"GET /\xc3\xa4 HTTP/1.1", b"Host: a"),
        request(b"GET /\x7f HTTP/1.1", b"Host: a"),
        request(b"GET / HTTP/1.2", b"Host: a"),
        request(b"GET / HTTP/2.0", b"Host: a"),
        request(b"PRI * HTTP/2.0", b"Host: a"),
        request(b"GET /", b"Host: a"),
        request(b"GET / HTTP/1.1", b"Host: a", b"X\x00: y"),
        request(b"GET / HTTP/1.1", b"Host: a", b"X\x07Y: y"),
        request(b"GET / HTTP/1.1", b"Host: a", b"X: y\x00"),
        request(b"GET / HTTP/1.1", b"Host: a", b": y"),
        request(b"GET / HTTP/1.1", b"Host: a", b"no colon"),
        request(b"GET / HTTP/1.1", b" Host: a"),
        request(b"GET / HTTP/1.1", b"Host: a", b"X: a", b"\tfolded"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 1", b"Content-Length: 1", body=b"a"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 1, 1", body=b"a"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: -1"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 1_0"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: \xb2"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 9999999999999999999"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 1", b"Transfer-Encoding: chunked", body=b"a"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked, chunked"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked;q=1"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: \x0bchunked"),
        request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding:"),
        request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked"),
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n" * 5 + request(b"GET / HTTP/1.1", b"Host: a"),
        request(
            b"POST / HTTP/1.1",
            b"Host: a",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Content-Length: 1",
            body=b"a",
        ),
    ],
)
def test_refused(data: bytes) -> None:
    reader = RequestReader(ConnectionLimits())
    reader.feed(data)
    with pytest.raises(InvalidRequest):
        reader.head()


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"\r\n",
        b"ffffffffffffffff\r\n",
        b"00000000000000001\r\na",
        b"1;\x00\r\na",
        b"1;a\nb\r\na",
        b"1\r\nab\r\n",
        b"1\r\na\rb",
        b"1\r\na\n0\r\n\r\n",
        b"0\r\n trailer: x\r\n\r\n",
        b"0\r\na\x01: x\r\n\r\n",
    ],
)
def test_chunks_refused(body: bytes) -> None:
    assert read([CHUNKED + body], ConnectionLimits())[-1] == "GENERAL::BAD_REQUEST"


def test_another_coding_is_not_understood() -> None:
    reader = RequestReader(ConnectionLimits())
    reader.feed(request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: gzip, chunked"))
    with pytest.raises(NotSupported):
        reader.head()


@pytest.mark.parametrize("endless", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"G", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_end_is_refused_before_it_is_kept(endless: bytes) -> None:
    reader = RequestReader(ConnectionLimits())
    reader.feed(endless)
    unit = b"a: b\r\n" if endless.endswith(b"\n") else b"A"

    def feed() -> None:
        for _ in range(70_000):
            reader.feed(unit)
            assert reader.head() is None

    with pytest.raises(HeadTooLarge):
        feed()
    assert len(reader.rest) <= 65536 + len(unit)


@pytest.mark.parametrize("fields", [199, 200])
def test_the_number_of_fields(fields: int) -> None:
    reader = RequestReader(ConnectionLimits())
    reader.feed(request(b"GET / HTTP/1.1", b"Host: a", *[b"X: y"] * fields))
    if fields == 199:
        assert reader.head() is not None
    else:
        with pytest.raises(HeadTooLarge):
            reader.head()


def test_the_exact_size_of_a_head() -> None:
    filler = SMALL.head_bytes - len(request(b"GET / HTTP/1.1", b"Host: a", b"X: "))
    fits = request(b"GET / HTTP/1.1", b"Host: a", b"X: " + b"y" * filler)
    assert isinstance(read([fits])[0], Head)
    assert read([fits.replace(b"X", b"XX")]) == ["GENERAL::HEAD_TOO_LARGE"]


def test_trailers_are_no_headers() -> None:
    data = CHUNKED + b"0\r\nHost: evil\r\nOPEN-SANDBOX-API-KEY: k\r\n\r\n" + request(b"GET /2 HTTP/1.1", b"Host: a")
    first, body, second, _ = read([data])
    assert (first.headers, body) == ([(b"host", b"a"), (b"transfer-encoding", b"chunked")], b"")
    assert (second.target, second.headers) == (b"/2", [(b"host", b"a")])


def test_overhead_is_bounded_where_no_single_line_is_too_long() -> None:
    chunk = b"1;" + b"e" * 1000 + b"\r\na\r\n"
    assert read([CHUNKED] + [chunk] * 70, ConnectionLimits())[-1] == "GENERAL::HEAD_TOO_LARGE"
    large = b"400;" + b"e" * 1000 + b"\r\n" + b"a" * 0x400 + b"\r\n"
    assert len(read([CHUNKED] + [large] * 200, ConnectionLimits())[-1]) == 200 * 0x400


def test_absolute_form_names_the_host() -> None:
    head = read([request(b"GET http://B:8/x?y HTTP/1.1", b"X: 1", b"Host: a")])[0]
    assert (head.target, head.headers) == (b"/x?y", [(b"host", b"B:8"), (b"x", b"1")])
    assert read([request(b"GET http://b?q HTTP/1.1", b"Host: a")])[0].target == b"/?q"


@pytest.mark.parametrize("host", [b"a", b"a:80", b"[::1]:80", b"a_b.c", b"10.0.0.1", b"xn--a", b"a:"])
def test_hosts(host: bytes) -> None:
    assert isinstance(read([request(b"GET / HTTP/1.1", b"Host: " + host)])[0], Head)


def test_an_upgrade_that_is_not_to_websocket_is_framed_like_any_request() -> None:
    lines = [b"POST / HTTP/1.1", b"Host: a", b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 20"]
    body = b"GET /evil HTTP/1.1\r\n"
    assert read([request(*lines, body=body)])[1:] == [body]
