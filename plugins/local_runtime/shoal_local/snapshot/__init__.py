"""Snapshots: what a sandbox has written, kept under an id of its own, and new sandboxes made of it.

::

    library.py   the snapshots that there are, on disk
    capture.py   taking one of a running sandbox
    restore.py   whether one can be restored
    copying.py   copying what sandboxes wrote, by a program
    copier.py    that program
"""
