"""Signals as children expect them: at their defaults, none blocked, whatever the agent's parent had set."""

from __future__ import annotations

import contextlib
import os
import signal

_ENDS = (signal.SIGTERM, signal.SIGINT)

_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these; `subprocess` resets them in children by itself."""
_INTERNAL = (32, 33)
"""Those of glibc's threads."""
_SIGACTION_CALLS = {"x86_64": 13, "aarch64": 134}
"""The number of the call `rt_sigaction`."""
_SIGACTION_BYTES, _SIGNAL_SET_BYTES = 64, 8
"""Room for the kernel's structure, which all zeros make the default, and the size of a set of signals."""


def hold_ends() -> None:
    """Lets signals that end the agent wait until `let_through`: as process 1 it would lose them before it listens."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)


def let_through() -> None:
    """Blocks no signal, whatever the parent had blocked. Call it once what listens to the ends is in place."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset() -> None:
    """Makes every ignored signal start at its default in children. Call it once, in the main thread.

    A shell that starts the agent with ``&`` leaves SIGINT ignored, which every child would inherit: Ctrl-C would do
    nothing. A handler is not inherited, so the ignored signals get one that does nothing.
    """
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, _nothing)
    _reset_internal(_ignored())


def _ignored() -> int:
    """The signals that this process ignores, a bit for each; 0 if that cannot be known."""
    try:
        with open("/proc/self/status", "rb") as file:
            (text,) = (line[len(b"SigIgn:") :] for line in file if line.startswith(b"SigIgn:"))
        return int(text, 16)
    except (OSError, ValueError):
        return 0


def _reset_internal(ignored: int) -> None:
    """The C library's own signals: its `posix_spawn` ignores them in children, and its functions do not touch them."""
    numbers = [number for number in _INTERNAL if ignored >> (number - 1) & 1]
    call = _SIGACTION_CALLS.get(os.uname().machine)
    if not numbers or call is None:
        return
    import ctypes  # only where somebody has started the agent that way

    libc, default = ctypes.CDLL(None), ctypes.create_string_buffer(_SIGACTION_BYTES)
    for number in numbers:
        libc.syscall(ctypes.c_long(call), ctypes.c_long(number), default, None, ctypes.c_long(_SIGNAL_SET_BYTES))


def _nothing(number: int, frame: object) -> None:
    """Ignores a signal."""
