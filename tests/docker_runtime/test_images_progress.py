"""How far a pull is, out of the stream of Docker 20.10."""

from __future__ import annotations

import time
from typing import Any

from shoal_docker.images.progress import Pace, PullProgress

STREAM: list[dict[str, Any]] = [
    {"status": "Pulling from private/x", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "bbb"},
    {"status": "Already exists", "progressDetail": {}, "id": "ccc"},
    {"status": "Waiting", "progressDetail": {}, "id": "bbb"},
    {"status": "Downloading", "progressDetail": {"current": 500_000, "total": 2_000_000}, "id": "aaa"},
    {"status": "Downloading", "progressDetail": {"current": 1_500_000, "total": 4_000_000}, "id": "bbb"},
]
END: list[dict[str, Any]] = [
    {"status": "Verifying Checksum", "progressDetail": {}, "id": "aaa"},
    {"status": "Extracting", "progressDetail": {"current": 32_768, "total": 2_000_000}, "id": "aaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
    {"status": "Download complete", "progressDetail": {}, "id": "bbb"},
    {"status": "Pull complete", "progressDetail": {}, "id": "bbb"},
    {"status": "Digest: sha256:3f9f"},
]


def test_layers_and_bytes() -> None:
    progress = PullProgress("x:latest")
    assert progress.message == "Pulling x:latest."
    for line in STREAM:
        progress.note(line)
    assert progress.message == "Pulling x:latest: 1 of 3 layers, 2.0 of 6.0 MB."
    for line in END:
        progress.note(line)
    assert progress.message == "Pulling x:latest: 3 of 3 layers, 6.0 of 6.0 MB."
    assert progress.received == 6_000_000
    assert not progress.mismatch


def test_another_platform_is_noticed() -> None:
    progress = PullProgress("x:latest")
    words = "WARNING: image with reference x was found but does not match the specified platform: wanted a, actual: b"
    progress.note({"status": words})
    assert progress.mismatch == words


def test_odd_lines_do_no_harm() -> None:
    progress = PullProgress("x")
    odd: list[dict[str, Any]] = [
        {},
        {"id": None},
        {"status": "Downloading", "id": "a"},
        {"status": "Downloading", "progressDetail": None},
    ]
    for line in odd:
        progress.note(line)
    assert progress.message == "Pulling x: 0 of 1 layers."


def test_pace() -> None:
    pace = Pace(3600.0)
    assert [pace.due() for _ in range(3)] == [True, False, False]
    often = Pace(0.0)
    before = time.monotonic()
    assert all(often.due() for _ in range(3))
    assert time.monotonic() >= before
