"""Limits of one sandbox, and pausing it.

::

    limits.py       what was asked for, and by what it is enforced
    birth.py        processes that are born in a control group
    cgroups.py      control groups, versions 1 and 2
    disk.py         a file system of limited size
    freeze.py       pausing, by the freezer or by signals
"""
