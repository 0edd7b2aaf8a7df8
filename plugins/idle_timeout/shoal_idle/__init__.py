"""Idle timeout: ends or pauses a sandbox that nobody has reached for a while, and resumes a paused one on access.

::

    policy.py   what a create's extensions ask for
    clock.py    how long each sandbox has been idle: one heap and one timer for all
    plugin.py   judges on the sandbox's own lane, ends or pauses, and wakes
    hooks.py    what the kernel calls
"""
