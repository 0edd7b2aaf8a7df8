"""Names of preview hosts: ``{port}-{id}``, and ``{port}-{id}-{expires}-{signature}`` for a signed link.

The longest is 63 characters, which is all that a DNS label holds.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_LABEL = re.compile(rf"([1-9][0-9]{{0,4}})-({_UUID})(?:-([1-9a-z][0-9a-z]{{0,6}})-([a-z2-7]{{12}}))?")


class PreviewTarget(NamedTuple):
    """What a label says.

    Attributes:
        moment, signature: of a signed link, as written; None in a plain name.
    """

    port: int
    sandbox_id: str
    moment: str | None = None
    signature: str | None = None

    def __str__(self) -> str:
        parts = (str(self.port), self.sandbox_id, self.moment, self.signature)
        return "-".join(part for part in parts if part is not None)


def parse(label: str) -> PreviewTarget | None:
    """The place that a lower-case label names; None for any other label."""
    match = _LABEL.fullmatch(label)
    if match is None:
        return None
    port = int(match[1])
    return PreviewTarget(port, match[2], match[3], match[4]) if port <= 65535 else None


def bare(host: str) -> str:
    """A Host header without port and final dot, in lower case."""
    return host.partition(":")[0].removesuffix(".").lower()
