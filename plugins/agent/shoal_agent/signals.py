"""Signals as children expect them: at their defaults, none blocked, whatever the agent's parent had set."""

from __future__ import annotations

import contextlib
import signal

_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these; `subprocess` resets them in children by itself."""


def reset() -> None:
    """Makes every ignored signal start at its default in children. Call it once, in the main thread.

    A shell that starts the agent with ``&`` leaves SIGINT ignored, which every child would inherit: Ctrl-C would do
    nothing. A handler is not inherited, so the ignored signals get one that does nothing.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, _nothing)


def _nothing(number: int, frame: object) -> None:
    """Ignores a signal."""
