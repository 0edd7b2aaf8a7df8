"""Secrets in what an engine says of a container: named as such, or looking like one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"SECRET|TOKEN|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST: Final = 6
"""Shorter values are too common to be looked for elsewhere in a text."""
_SECRET_VALUE: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AKIA|ASIA)[A-Za-z0-9_-]{12,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\."  # a JSON Web Token
)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+@")


def masked(key: str, value: str) -> str:
    """The value, or what may be shown of it."""
    if _SECRET_NAME.search(key) or _SECRET_VALUE.search(value):
        return MASK
    return _USERINFO.sub(f"{MASK}@", value)


def secrets(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The values that `masked` hides, longest first, so that they can be taken out of other text too."""
    found = {value for key, value in pairs if len(value) >= _SHORTEST and masked(key, value) == MASK}
    return sorted(found, key=len, reverse=True)


def without(text: str, hidden: Iterable[str]) -> str:
    """The text with every one of ``hidden`` masked."""
    for secret in hidden:
        text = text.replace(secret, MASK)
    return text
