"""What the extensions of a create say about idleness and waking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

TIMEOUT: Final = "access.idle.timeout.seconds"
ACTION: Final = "access.idle.action"
RESUME: Final = "access.resume"
KEYS: Final = frozenset({TIMEOUT, ACTION, RESUME})

MIN_SECONDS, MAX_SECONDS = 60, 30 * 86400
"""Bounds of the idle timeout, in seconds."""
ACTIONS: Final = ("delete", "pause")
ON_ACCESS: Final = "on-access"
RESUMES: Final = (ON_ACCESS, "manual")


class IdlePolicy(Struct, frozen=True):
    """What one sandbox asked for.

    Attributes:
        timeout: seconds without access after which ``action`` is taken; None for never.
        on_access: the next access resumes it when it is paused, whoever paused it.
    """

    timeout: float | None = None
    action: Literal["delete", "pause"] = "delete"
    on_access: bool = False


def read(extensions: Mapping[str, str]) -> IdlePolicy:
    """The policy. Raises ValueError that says which key is wrong and what it may be."""
    action = _one_of(extensions, ACTION, ACTIONS)
    timeout = _seconds(extensions)
    if ACTION in extensions and timeout is None:
        raise ValueError(f"{ACTION} needs {TIMEOUT}")
    return IdlePolicy(
        timeout=timeout,
        action="pause" if action == "pause" else "delete",
        on_access=_one_of(extensions, RESUME, RESUMES) == ON_ACCESS,
    )


def _seconds(extensions: Mapping[str, str]) -> float | None:
    text = extensions.get(TIMEOUT)
    if text is None:
        return None
    try:
        seconds = int(text.strip())
    except ValueError:
        seconds = 0
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError(f"{TIMEOUT} must be an integer between {MIN_SECONDS} and {MAX_SECONDS}")
    return float(seconds)


def _one_of(extensions: Mapping[str, str], key: str, allowed: tuple[str, ...]) -> str | None:
    text = extensions.get(key)
    if text is not None and text.strip() not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}")
    return None if text is None else text.strip()
