"""Text that must not show: registry passwords, tokens, keys."""

from __future__ import annotations

from typing import Any, ClassVar


class Secret:
    """A string whose value shows only where `reveal` is called: not in ``repr``, ``str``, f-strings or logs."""

    __slots__ = ("_value",)
    MASK: ClassVar[str] = "********"

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{self.MASK}')"

    def __str__(self) -> str:
        return self.MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def decode_hook(kind: type, value: Any) -> Any:
    """msgspec ``dec_hook``: makes a `Secret` from a string. Raises TypeError for another value."""
    if kind is Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return Secret(value)
        raise TypeError("Expected `str`")
    raise NotImplementedError(kind)


def encode_hook(value: Any) -> Any:
    """msgspec ``enc_hook`` for the store alone: reveals. Responses never use it, so a secret there is an error."""
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))
