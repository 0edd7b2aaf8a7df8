"""Frames as they come off the wire: the cases of the Autobahn test suite, by hand, through the proxy (RFC 6455)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.proxy.sockets import RawClient, masked_frame, raw_client, raw_service, service, socket_front
from tests.support.waiting import until

from shoal.proxy.websocket import relay
from shoal.proxy.websocket.frames import Control, FrameReader, Violation, masked

FIN, RSV1 = 0x80, 0x40
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
HELLO = masked_frame(TEXT, b"hello")
BAD_UTF8 = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"
FINE_UTF8 = "Hello-µ@ßöäüàá-UTF-8!!".encode()


async def failed(client: RawClient, code: int) -> None:
    """The next that comes is a close with this code, and then the end."""
    first, payload = await client.frame()
    assert (first, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
    assert await client.frame() == (-1, b"")


@pytest.mark.parametrize("size", [0, 1, 60, 125])
async def test_pings_are_answered_here(size: int) -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        for turn in range(10):
            payload = bytes([turn]) * size
            await client.send(masked_frame(PONG, b"unasked") + masked_frame(PING, payload))
            assert await client.frame() == (PONG, payload)
        await client.send(HELLO)
        assert await client.frame() == (TEXT, b"hello")


async def test_pings_between_fragments_and_bytes_one_by_one() -> None:
    parts = [masked_frame(0x01, b"fragment "), masked_frame(PING, b"now"), masked_frame(FIN, b"of two")]
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        for pieces in (parts, [b"".join(parts)], [bytes([byte]) for byte in b"".join(parts)]):
            for piece in pieces:
                await client.send(piece)
            assert await client.frame() == (PONG, b"now")
            assert await client.frame() == (TEXT, b"fragment of two")


async def test_empty_fragments_are_a_message() -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(masked_frame(0x01, b"") + masked_frame(0x00, b"") + masked_frame(FIN, b""))
        assert await client.frame() == (TEXT, b"")


VIOLATIONS = {
    "ping too long": masked_frame(PING, bytes(126)),
    "close too long": masked_frame(CLOSE, b"\x03\xe8" + bytes(124)),
    "ping in fragments": masked_frame(PING & ~FIN, b"x"),
    "pong in fragments": masked_frame(PONG & ~FIN, b"x"),
    "continues nothing": masked_frame(FIN, b"x"),
    "continues nothing, goes on": masked_frame(0x00, b"x"),
    "message within a message": masked_frame(0x01, b"x") + masked_frame(TEXT, b"y"),
    "not masked": bytes([TEXT, 1]) + b"x" * 5,
    "first bit of the length": bytes([BINARY, 0xFF]) + b"\x80" + bytes(11),
    **{
        f"reserved bits {bits:#x}": masked_frame(TEXT | bits, b"x")
        for bits in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70)
    },
    **{f"reserved bits of a ping {bits:#x}": masked_frame(PING | bits, b"") for bits in (0x10, 0x20, 0x40)},
    **{f"opcode {code}": masked_frame(FIN | code, b"") for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
}


@pytest.mark.parametrize("frames", VIOLATIONS.values(), ids=VIOLATIONS)
@pytest.mark.parametrize("ahead", [b"", HELLO], ids=["alone", "behind a message"])
async def test_a_client_that_breaks_the_protocol(frames: bytes, ahead: bytes) -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(ahead + frames + HELLO)
        first, payload = await client.frame()
        if (first, payload) == (TEXT, b"hello"):
            first, payload = await client.frame()
        assert (first, payload[:2]) == (CLOSE, b"\x03\xea")
        assert await client.frame() == (-1, b"")
        assert (await backend.closed())[0] == 1001


@pytest.mark.parametrize(
    "frames",
    [b"\x81\x85\0\0\0\0hello", b"\xc1\x01x", b"\x83\x00", b"\x80\x01x", b"\x09\x00", b"\x82\x7f\xff" + bytes(7)],
    ids=["masked", "reserved bit", "opcode", "continues nothing", "ping in fragments", "first bit of the length"],
)
async def test_a_service_that_breaks_the_protocol(frames: bytes) -> None:
    upstream, heard = raw_service(frames)
    async with upstream.running(), socket_front(upstream.address) as front:
        assert await front.refused() == (1011, relay.BROKEN)
        await until(lambda: heard)
        assert (heard[0][0], heard[0][1][:2]) == (CLOSE, b"\x03\xea")


@pytest.mark.parametrize("cut", range(1, len(FINE_UTF8), 3))
async def test_text_may_be_cut_within_a_character(cut: int) -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(masked_frame(0x01, FINE_UTF8[:cut]) + masked_frame(FIN, FINE_UTF8[cut:]))
        assert await client.frame() == (TEXT, FINE_UTF8)


@pytest.mark.parametrize("frames", [[BAD_UTF8], [BAD_UTF8[:11], BAD_UTF8[11:]], [BAD_UTF8[:12], BAD_UTF8[12:]]])
async def test_text_that_is_not_utf_8_is_for_the_service_to_refuse(frames: list[bytes]) -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        for index, payload in enumerate(frames):
            final = FIN if index == len(frames) - 1 else 0
            await client.send(masked_frame(final | (0 if index else 1), payload))
        await failed_by_service(client)


async def failed_by_service(client: RawClient) -> None:
    first, payload = await client.frame()
    assert (first, payload[:2]) == (CLOSE, b"\x03\xef")  # 1007
    await client.send(masked_frame(CLOSE, payload))
    assert await client.frame() == (-1, b"")


async def test_a_reserved_bit_has_a_meaning_where_compression_was_agreed_on() -> None:
    lines = ["Sec-WebSocket-Extensions: x-unknown, permessage-deflate; client_max_window_bits, permessage-deflate"]
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port, *lines) as client:
        assert backend.last.request is not None
        offers = backend.last.request.headers["Sec-WebSocket-Extensions"]
        assert offers == "permessage-deflate; client_max_window_bits, permessage-deflate"
        await client.send(masked_frame(TEXT | RSV1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"))  # RFC 7692 section 7.2.3.1
        first, payload = await client.frame()
        assert (first, payload) == (TEXT | RSV1, b"\xf2\x48\xcd\xc9\xc9\x07\x00")
        await client.send(masked_frame(PING | RSV1, b""))
        await failed(client, 1002)


payloads = st.binary(max_size=200) | st.integers(60_000, 70_000).map(bytes)
messages = st.tuples(st.sampled_from([TEXT, BINARY]), payloads)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@given(frames=st.lists(messages | controls, max_size=12), key=st.binary(min_size=4, max_size=4), data=st.data())
def test_however_the_bytes_are_cut(frames: list[tuple[int, bytes]], key: bytes, data: st.DataObject) -> None:
    """Data goes on byte for byte, control frames are taken out whole, and each is found where it stood."""
    wire = [masked_frame(first, payload, key) for first, payload in frames]
    stream = b"".join(wire)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    reader = FrameReader(masked=True, limit=0, compressed=False)
    passed, taken = b"", []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for item in reader.feed(stream[start:end]):
            assert not isinstance(item, Violation)
            if isinstance(item, Control):
                taken.append((item, len(passed)))
            else:
                passed += item
    assert reader.left == 0
    expected, at = [], 0
    for (first, payload), content in zip(frames, wire, strict=True):
        if first & 8:
            expected.append((Control(first & 15, payload), at))
        else:
            at += len(content)
    assert taken == expected
    assert passed == b"".join(content for (first, _), content in zip(frames, wire, strict=True) if not first & 8)


@given(payload=st.binary(max_size=125), key=st.binary(min_size=4, max_size=4))
def test_masking_twice_gives_back_what_was(payload: bytes, key: bytes) -> None:
    assert masked(masked(payload, key), key) == payload
    assert masked_frame(PING, payload, key)[6:] == masked(payload, key)
