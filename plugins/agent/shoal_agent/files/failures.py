"""What the file system refuses, as answers."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from shoal_agent.http.errors import FILE_NOT_FOUND, INVALID_FILE, RUNTIME_ERROR, ApiError

PERMISSION_DENIED = "PERMISSION_DENIED"
FILE_EXISTS = "FILE_EXISTS"
NO_SPACE = "NO_SPACE"
_ANSWERS = {
    errno.ENOENT: (404, FILE_NOT_FOUND),
    errno.ENOTDIR: (404, FILE_NOT_FOUND),
    errno.EACCES: (403, PERMISSION_DENIED),
    errno.EPERM: (403, PERMISSION_DENIED),
    errno.EROFS: (403, PERMISSION_DENIED),
    errno.EOVERFLOW: (403, PERMISSION_DENIED),
    errno.EISDIR: (400, INVALID_FILE),
    errno.EINVAL: (400, INVALID_FILE),
    errno.ENXIO: (400, INVALID_FILE),
    errno.ELOOP: (400, INVALID_FILE),
    errno.ENAMETOOLONG: (400, INVALID_FILE),
    errno.EEXIST: (409, FILE_EXISTS),
    errno.ENOTEMPTY: (409, FILE_EXISTS),
    errno.EBUSY: (409, RUNTIME_ERROR),
    errno.ETXTBSY: (409, RUNTIME_ERROR),
    errno.ENOSPC: (507, NO_SPACE),
    errno.EDQUOT: (507, NO_SPACE),
    errno.EFBIG: (507, NO_SPACE),
}
_TEXTS = {errno.EOVERFLOW: "its folder belongs to a user that this sandbox does not have"}
"""Where the system's own words say something else."""


def failure(error: OSError, path: str) -> ApiError:
    """The answer to an operation on `path` that failed."""
    status, code = _ANSWERS.get(error.errno or 0, (500, RUNTIME_ERROR))
    return ApiError(status, code, f"{shown(path)}: {_TEXTS.get(error.errno or 0) or error.strerror or error}")


@contextlib.contextmanager
def reported(path: str) -> Iterator[None]:
    """Turns the OSErrors of an operation on `path` into answers."""
    try:
        yield
    except OSError as error:
        raise failure(error, path) from error


def shown(path: str) -> str:
    """A path as text: bytes that are no UTF-8 as U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")
