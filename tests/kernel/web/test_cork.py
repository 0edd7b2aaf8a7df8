"""An answer's head and the start of its body leave in one write, and nothing is held for longer than a turn."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from shoal.web.cork import Cork

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Wire:
    """What a transport was asked to do."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
async def wire() -> Wire:
    return Wire()


def cork(wire: Wire) -> Cork:
    return Cork(cast("asyncio.Transport", wire), asyncio.get_running_loop())


async def test_a_head_waits_for_its_body(wire: Wire) -> None:
    corked = cork(wire)
    corked.write(HEAD)
    assert wire.written == []
    corked.write(b"ok")
    await asyncio.sleep(0)
    assert wire.written == [HEAD + b"ok"]


async def test_a_head_alone_leaves_with_the_next_turn(wire: Wire) -> None:
    cork(wire).write(HEAD)
    await asyncio.sleep(0)
    assert wire.written == [HEAD]


async def test_two_answers_in_one_turn_keep_their_order(wire: Wire) -> None:
    corked = cork(wire)
    for _ in range(2):
        corked.write(HEAD)
        corked.write(b"ok")
    await asyncio.sleep(0)
    assert b"".join(wire.written) == (HEAD + b"ok") * 2


async def test_a_large_body_is_not_copied(wire: Wire) -> None:
    corked, body = cork(wire), bytes(70_000)
    corked.write(HEAD)
    corked.write(body)
    assert wire.written == [HEAD, body]
    assert wire.written[1] is body


async def test_body_chunks_pass_at_once(wire: Wire) -> None:
    corked = cork(wire)
    corked.write(b"5\r\nhello\r\n")
    assert wire.written == [b"5\r\nhello\r\n"]


async def test_closing_sends_what_is_held_first(wire: Wire) -> None:
    corked = cork(wire)
    corked.write(HEAD)
    corked.close()
    await asyncio.sleep(0)
    assert wire.written == [HEAD]
    assert corked.is_closing()
