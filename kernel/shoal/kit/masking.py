"""Secrets in text that people read: known by the name of their key, or by how they look."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "***"
"""What stands in a secret's place (docs/wire/docker.md section 13)."""

_SECRET_NAME: Final = re.compile(r"SECRET|TOKEN|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
_MIN_LENGTH: Final = 6
"""Shorter values are too common to be looked for elsewhere in a text."""
_SECRET_VALUE: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AKIA|ASIA)[A-Za-z0-9_-]{12,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\."  # a JSON Web Token
)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+@")


def mask(key: str, value: str) -> str:
    """The value as it may be shown under that key: `MASK` for a secret, and a URL without its user and password."""
    if _SECRET_NAME.search(key) or _SECRET_VALUE.search(value):
        return MASK
    return _USERINFO.sub(f"{MASK}@", value)


def secret_values(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The values that `mask` hides, longest first, so that they can be taken out of other text too."""
    found = {value for key, value in pairs if len(value) >= _MIN_LENGTH and mask(key, value) == MASK}
    return sorted(found, key=len, reverse=True)


def mask_all(text: str, values: Iterable[str]) -> str:
    """The text with every one of ``values`` masked."""
    for value in values:
        text = text.replace(value, MASK)
    return text
