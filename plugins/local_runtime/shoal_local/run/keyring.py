"""Session keyrings: each sandbox gets an empty one of its own, or it would have the server's (session-keyring(7))."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading
from typing import Final

from shoal.errors import EngineFailure

_CALLS: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "armv7l": 311, "ppc64le": 271, "s390x": 280}
"""keyctl(2)'s number by architecture, from the kernel's system call tables."""
JOIN_CALL: Final = _CALLS.get(platform.machine())
_JOIN_SESSION_KEYRING: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)
_own: Final = threading.local()


def leave_session_keyring() -> None:
    """Give this thread, and with it the next process that it starts, a new and empty session keyring.

    The other threads of the server keep theirs. Where this user may have no more keyrings, the thread keeps the one
    that it got for an earlier sandbox. Raises EngineFailure if it still has the server's.
    """
    number = _CALLS.get(platform.machine())
    if number is None:
        return
    if _libc.syscall(number, _JOIN_SESSION_KEYRING, None) >= 0:
        _own.joined = True
        return
    reason = ctypes.get_errno()
    if reason == errno.ENOSYS or getattr(_own, "joined", False):
        return  # a kernel without keyrings, or no more than this one
    text = f"the sandbox can get no keyring of its own: {os.strerror(reason)}"
    raise EngineFailure("LOCAL::SANDBOX_START_FAILED", text)
