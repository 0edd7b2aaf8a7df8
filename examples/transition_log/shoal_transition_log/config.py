"""The section ``[transition_log]``."""

from __future__ import annotations

from shoal.config.settings import Positive, Section, Text


class TransitionLogSettings(Section):
    """``[transition_log]``; its presence enables the plugin."""

    path: Text
    """The file that lines are appended to; ``~`` is expanded, and the directory must exist."""
    queue_size: Positive = 10000
    """Transitions that may wait for the disk; past that they are dropped, and counted in the log."""
