"""Bytes of output as pieces of text that break at line ends where they can."""

from __future__ import annotations

import codecs

from shoal_agent.code.events import MAX_TEXT_LENGTH

_DECODER = codecs.getincrementaldecoder("utf-8")


class Texts:
    """One stream. An unfinished line is held back until `rest`, or until it is long."""

    def __init__(self) -> None:
        self._decoder = _DECODER("replace")
        self._held = ""

    @property
    def holds(self) -> bool:
        """Whether `rest` returns something."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[str]:
        """The pieces that are complete with `data`."""
        text = self._held + self._decoder.decode(data)
        end = text.rfind("\n") + 1
        if len(text) - end > MAX_TEXT_LENGTH:
            end = len(text)
        self._held = text[end:]
        return split(text[:end])

    def rest(self, *, final: bool = False) -> list[str]:
        """What was held back. `final` also gives up on an unfinished character."""
        text = self._held + (self._decoder.decode(b"", final=True) if final else "")
        self._held = ""
        return split(text)


def split(text: str) -> list[str]:
    """`text` in pieces of at most `MAX_TEXT_LENGTH` characters, broken after a line end where one is near."""
    pieces = []
    start = 0
    while len(text) - start > MAX_TEXT_LENGTH:
        end = text.rfind("\n", start, start + MAX_TEXT_LENGTH) + 1
        if end <= start:
            end = start + MAX_TEXT_LENGTH
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        pieces.append(text[start:])
    return pieces
