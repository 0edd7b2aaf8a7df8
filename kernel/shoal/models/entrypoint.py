"""What an entrypoint means, on every runtime."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from shoal.errors import InvalidRequest
from shoal.models import codes


def words(entrypoint: Sequence[str]) -> list[str]:
    """The words of the command; a single one with a space in it is split as a shell would, and nothing is expanded.

    Raises InvalidRequest for bad quoting, and where nothing is left.
    """
    if len(entrypoint) != 1 or " " not in entrypoint[0]:
        return list(entrypoint)
    try:
        split = shlex.split(entrypoint[0])
    except ValueError as error:
        raise InvalidRequest(codes.INVALID_PARAMETER, f"entrypoint: it cannot be split into words: {error}.") from None
    if not split:
        raise InvalidRequest(codes.INVALID_ENTRYPOINT, "entrypoint: it is blank.")
    return split
