"""Which headers travel, as pure functions and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidRequest, NotSupported
from shoal.proxy.failures import FramingError
from shoal.proxy.headers import (
    FORWARDED,
    HOP_BY_HOP,
    REQUEST_DROPPED,
    forwarded_headers,
    framing,
    read_request,
    request_head,
    response_framing,
    response_headers,
    with_endpoint_headers,
)

NAMES = st.one_of(
    st.sampled_from(sorted(REQUEST_DROPPED - {b"content-length", b"transfer-encoding"})),
    st.sampled_from([b"accept", b"via", b"origin", b"x-a", b"x-b", b"opensandbox-egress-auth", b"set-cookie"]),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-!#$%&'*+.^_`|~", min_size=1, max_size=12).map(str.encode),
).filter(lambda name: name not in (b"content-length", b"transfer-encoding"))
VALUES = st.binary(max_size=20).map(lambda value: bytes(b for b in value if b >= 0x20 and b != 0x7F).strip())
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=15)


@given(HEADERS)
def test_what_travels_is_the_rest_in_order(sent: list[tuple[bytes, bytes]]) -> None:
    named = {t.strip().lower() for name, value in sent if name == b"connection" for t in value.split(b",")}
    named -= {b"", b"close", b"keep-alive", b"upgrade"}
    assert read_request(sent).kept == [h for h in sent if h[0] not in REQUEST_DROPPED and h[0] not in named]


@given(HEADERS, HEADERS)
def test_an_endpoints_headers_replace_the_callers(
    sent: list[tuple[bytes, bytes]], own: list[tuple[bytes, bytes]]
) -> None:
    kept = read_request(sent).kept
    merged = with_endpoint_headers(kept, own)
    names = {name for name, _ in own} - HOP_BY_HOP - FORWARDED
    names -= {b"opensandbox-secure-access", b"opensandbox-egress-auth", b"host", b"content-length"}
    assert [h for h in merged if h[0] not in names] == [h for h in kept if h[0] not in names]
    assert [h for h in merged if h[0] in names] == [h for h in own if h[0] in names]


@given(HEADERS)
def test_a_head_reads_back_as_what_was_written(sent: list[tuple[bytes, bytes]]) -> None:
    kept = read_request(sent).kept
    lines = request_head(b"GET", b"/p?q", b"h:1", kept).split(b"\r\n")
    assert lines[:2] == [b"GET /p?q HTTP/1.1", b"host: h:1"]
    assert lines[-2:] == [b"", b""]
    assert [tuple(line.split(b": ", 1)) for line in lines[2:-2]] == kept


@given(st.binary(), st.binary(), st.sampled_from([b"\r", b"\n", b"\r\n", b"\0"]))
def test_no_value_says_more_than_one_line(before: bytes, after: bytes, breaks: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request_head(b"GET", b"/", b"h:1", [(b"x", before + breaks + after)])


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nx: y", b"/\xe4", b"/\x7f"])
def test_no_target_says_more_than_a_path(target: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request_head(b"GET", target, b"h:1", [])


def test_named_by_connection() -> None:
    sent = [(b"connection", b"close, X-Foo"), (b"x-foo", b"1"), (b"x-bar", b"2"), (b"te", b"trailers")]
    assert read_request(sent).kept == [(b"x-bar", b"2")]


def test_naming_the_framing_headers_hop_by_hop_does_not_unframe_the_body() -> None:
    request = read_request([(b"connection", b"content-length"), (b"content-length", b"3")])
    assert framing(request) == [(b"content-length", b"3")]


@pytest.mark.parametrize(
    "sent",
    [
        [(b"content-length", b"3"), (b"content-length", b"4")],
        [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"3")],
        [(b"content-length", b"+3")],
        [(b"content-length", b"3, 3")],
        [(b"content-length", b"")],
    ],
)
def test_a_body_framed_two_ways_is_refused(sent: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidRequest):
        read_request(sent)


@pytest.mark.parametrize(
    "codings", [[b"gzip, chunked"], [b"identity"], [b"chunked", b"chunked"], [b"chunked, chunked"]]
)
def test_transfer_codings_besides_chunked_are_not_supported(codings: list[bytes]) -> None:
    with pytest.raises(NotSupported):
        read_request([(b"transfer-encoding", coding) for coding in codings])


@pytest.mark.parametrize(
    ("value", "skip"), [(b"skip", True), (b"Skip", False), (b" skip", False), (b"", False), (b"skip,skip", False)]
)
def test_only_the_exact_word_skips_renewal(value: bytes, skip: bool) -> None:
    request = read_request([(b"opensandbox-access-renew", value)])
    assert (request.skip_renewal, request.kept) == (skip, [])


def test_forwarded_headers_say_what_was_seen() -> None:
    assert forwarded_headers("https", b"a.example", ("2001:db8::1", 5)) == [
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"a.example"),
        (b"x-forwarded-for", b"2001:db8::1"),
    ]
    assert forwarded_headers("wss", None, None) == [(b"x-forwarded-proto", b"https")]
    assert forwarded_headers("http", None, None) == [(b"x-forwarded-proto", b"http")]


@pytest.mark.parametrize(
    ("location", "rewritten"),
    [
        (b"/", b"/v1/sandboxes/x/proxy/80/"),
        (b"/login?next=%2F#a", b"/v1/sandboxes/x/proxy/80/login?next=%2F#a"),
        (b"//other.example/", b"//other.example/"),
        (b"login", b"login"),
        (b"../up", b"../up"),
        (b"?q", b"?q"),
        (b"", b""),
        (b"https://other.example/", b"https://other.example/"),
    ],
)
def test_location(location: bytes, rewritten: bytes) -> None:
    assert response_headers(302, [(b"location", location)], b"/v1/sandboxes/x/proxy/80") == [(b"location", rewritten)]


@given(HEADERS)
def test_an_answers_headers_travel_in_order(sent: list[tuple[bytes, bytes]]) -> None:
    named = {t.strip().lower() for name, value in sent if name == b"connection" for t in value.split(b",")}
    named -= {b"", b"close", b"keep-alive", b"upgrade"}
    dropped = HOP_BY_HOP | {b"server", b"x-request-id"} | named
    assert response_headers(200, sent, b"/p") == [h for h in sent if h[0] not in dropped]


@pytest.mark.parametrize(("status", "kept"), [(200, True), (206, True), (204, False), (304, False)])
def test_length_without_a_body_is_not_promised(status: int, kept: bool) -> None:
    assert bool(response_headers(status, [(b"content-length", b"5")], b"")) is kept


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"9" * 19)],
    ],
)
def test_an_answer_framed_two_ways_is_no_answer(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(FramingError):
        response_framing(headers)


def test_an_answers_framing() -> None:
    assert response_framing([(b"content-length", b"12")]) == (12, False)
    assert response_framing([(b"transfer-encoding", b"Chunked")]) == (None, True)
    assert response_framing([]) == (None, False)


@given(st.lists(st.sampled_from(sorted(REQUEST_DROPPED - {b"content-length", b"transfer-encoding"})), unique=True))
def test_on_a_host_of_its_own_only_the_applications_credentials_travel_besides(names: list[bytes]) -> None:
    sent = [(name, b"x") for name in names]
    assert read_request(sent).kept == []
    travels = [header for header in sent if header[0] in (b"authorization", b"cookie")]
    assert read_request(sent, own_host=True).kept == travels
