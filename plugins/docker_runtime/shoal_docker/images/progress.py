"""How far a pull is, out of the engine's stream, at a rate that people can read."""

from __future__ import annotations

import time
from typing import Any, Final

REASON: Final = "IMAGE_PULLING"
TELL_SECONDS: Final = 1.0
"""Between two updates of a status."""
LOG_SECONDS: Final = 10.0
"""Between two lines in the log."""
_DONE: Final = frozenset({"Pull complete", "Already exists"})
_LAYER: Final = _DONE | {
    "Pulling fs layer",
    "Waiting",
    "Downloading",
    "Verifying Checksum",
    "Download complete",
    "Extracting",
}
_MEGABYTE: Final = 1e6


class PullProgress:
    """Layers and bytes of one pull.

    Attributes:
        mismatch: the engine's words if what it got is for another platform than was asked for.
    """

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, bool] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self.mismatch = ""

    def note(self, line: dict[str, Any]) -> None:
        """One object of the stream."""
        status, layer = str(line.get("status") or ""), str(line.get("id") or "")
        if "does not match the specified platform" in status:
            self.mismatch = status
        if not layer or status not in _LAYER:
            return
        self._layers[layer] = status in _DONE
        detail = line.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._bytes[layer] = int(detail.get("current") or 0), int(detail["total"])
        elif status != "Downloading" and layer in self._bytes:
            total = self._bytes[layer][1]
            self._bytes[layer] = total, total

    @property
    def received(self) -> int:
        """Bytes, compressed."""
        return sum(current for current, _ in self._bytes.values())

    @property
    def message(self) -> str:
        """One sentence for a status."""
        if not self._layers:
            return f"Pulling {self._image}."
        total = sum(total for _, total in self._bytes.values())
        layers = f"{sum(self._layers.values())} of {len(self._layers)} layers"
        amount = f", {self.received / _MEGABYTE:.1f} of {total / _MEGABYTE:.1f} MB" if total else ""
        return f"Pulling {self._image}: {layers}{amount}."


class Pace:
    """Says when something that happens often should be reported."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time; if so, the next time is ``seconds`` away."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
