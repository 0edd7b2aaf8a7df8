"""Permission bits as the wire writes them: octal digits read as a decimal number, 0o755 as 755."""

from __future__ import annotations

from shoal_agent.http.errors import ApiError

MAX_MODE = 0o7777


def to_wire(mode: int) -> int:
    """The permission bits of an `st_mode`, for the wire."""
    return int(f"{mode & 0o777:o}")


def from_wire(number: int, code: str) -> int | None:
    """The permission bits that a client named; None for 0, which means unchanged. Raises `ApiError` 400 `code`."""
    if number == 0:
        return None
    digits = str(number)
    if not digits.isdigit() or "8" in digits or "9" in digits:
        raise ApiError(400, code, f"mode {number} is not made of octal digits: write rwxr-xr-x as 755")
    mode = int(digits, 8)
    if mode > MAX_MODE:
        raise ApiError(400, code, f"mode {number} is above 7777")
    return mode & 0o777
