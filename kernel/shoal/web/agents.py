"""What a User-Agent says of an SDK (docs/wire/api.md section 21)."""

from __future__ import annotations

import re
from typing import Final

SDK: Final = re.compile(r"OpenSandbox-([A-Za-z]+)-SDK/([\w.+-]{1,64})", re.IGNORECASE)
"""How the SDKs name themselves: language and version."""
_ASKS_AGAIN: Final = ("python", (1, 1))
"""The language, and its first version, that takes "not yet" for an endpoint as a reason to ask again."""
_VERSION: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


def asks_again(agent: str | None) -> bool:
    """Whether this client asks again for an endpoint that is not there yet; every SDK but one ends its create then.

    True for a client that is no SDK, or is one of a version that cannot be read.
    """
    sdk = SDK.search(agent or "")
    version = _VERSION.match(sdk[2]) if sdk else None
    if sdk is None or version is None:
        return True
    language, first = _ASKS_AGAIN
    return sdk[1].lower() == language and (int(version[1]), int(version[2])) >= first
