"""Which system calls a sandbox may make.

::

    calls.py    those that are refused, and why
    program.py  the filter: classic BPF, assembled here
    entry.py    the small program that puts a filter on and becomes the command
    files.py    both, where the tools that start sandboxes find them
"""
