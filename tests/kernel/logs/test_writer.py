"""The writer: never in the way of who logs, whatever becomes of the destination."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from shoal.logs.sinks import DescriptorSink, Sink, TextSink
from shoal.logs.writer import LogWriter, SinkQueue

# Logs 8 MiB to a stdout that nobody reads, while another task of the loop counts its turns.
STUCK = """
import asyncio, os, sys
from shoal import logs
from shoal.config.settings import LogSettings
from shoal.web.seam import AccessEntry

async def main():
    turns = 0
    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)
    ticking = asyncio.create_task(tick())
    for number in range(40):
        for _ in range(1000):
            logs.log_access(AccessEntry(
                request_id="r" * 32, client="127.0.0.1", principal=None, method="GET", route=None,
                path="/" + "p" * 60, sandbox_id=None, status=200, duration=0.001, complete=True))
        await asyncio.sleep(0)
    os.write(2, f"turns {turns}\\n".encode())
    await asyncio.to_thread(sys.stdin.read)
    ticking.cancel()

logs.configure(LogSettings(format="json", level="INFO"))
asyncio.run(main())
logs.shutdown(100)
"""


class Held(Sink):
    """A destination that is stuck until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.lines: list[bytes] = []
        self.closed = False

    def write(self, lines: list[bytes]) -> None:
        self.entered.set()
        self.go.wait()
        self.lines += lines

    def close(self) -> None:
        self.closed = True


def dropped(count: int) -> bytes:
    return b"dropped %d\n" % count


def test_every_line_in_order_from_many_threads() -> None:
    sink = Held()
    sink.go.set()
    channel = SinkQueue(sink, dropped)
    writer = LogWriter([channel])

    def log(name: int) -> None:
        for number in range(1000):
            channel.put(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=log, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.close(60)
    assert sink.closed
    for name in range(4):
        own = [line for line in sink.lines if line.startswith(b"%d " % name)]
        assert own == [b"%d %d\n" % (name, number) for number in range(1000)]


def test_a_stuck_destination_costs_lines_not_memory_and_the_loss_is_told() -> None:
    sink = Held()
    channel = SinkQueue(sink, dropped, limit=100)
    writer = LogWriter([channel])
    channel.put(b"first\n")
    assert sink.entered.wait(60)
    for _ in range(50):
        channel.put(b"123456789\n")
    assert not writer.close(0.0)
    sink.go.set()
    assert writer.close(60)
    assert sink.lines == [b"first\n", *[b"123456789\n"] * 10, b"dropped 40\n"]


def test_two_channels_do_not_share_their_room() -> None:
    stuck, free = Held(), Held()
    full, other = SinkQueue(stuck, dropped, limit=10), SinkQueue(free, dropped, limit=10)
    full.put(b"123456789\n")
    full.put(b"123456789\n")
    other.put(b"abcdefghi\n")
    stuck.go.set()
    free.go.set()
    writer = LogWriter([full, other])
    assert writer.close(60)
    assert stuck.lines == [b"123456789\n", b"dropped 1\n"]
    assert free.lines == [b"abcdefghi\n"]


def test_a_pipe_that_nobody_reads_does_not_stop_the_event_loop() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        word, turns = process.stderr.readline().split()  # it got through, though nobody has read a line
        assert word == "turns"
        assert int(turns) >= 40
        stdout, stderr = process.communicate(timeout=110)
    assert (process.returncode, stderr) == (0, "")
    lines = [json.loads(line) for line in stdout.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    losses = [line for line in lines if line["logger"] == "shoal.logs"]
    assert losses
    assert len(requests) + sum(line["count"] for line in losses) == 40_000
    assert len(lines) == len(requests) + len(losses)


def test_a_descriptor_that_someone_made_non_blocking() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    line = b"x" * 999 + b"\n"
    read = bytearray()

    def drain() -> None:
        while data := os.read(reader, 65536):
            read.extend(data)

    thread = threading.Thread(target=drain)
    thread.start()
    DescriptorSink(writer).write([line] * 500)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(read) == line * 500


def test_a_reader_that_is_gone_is_survived() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    DescriptorSink(writer).write([b"lost\n"])
    os.close(writer)


def test_a_stream_without_a_descriptor(capsys: pytest.CaptureFixture[str]) -> None:
    sink = TextSink(sys.stdout)
    sink.write([b"one\n", b"two\n"])
    sink.close()
    assert capsys.readouterr().out == "one\ntwo\n"
