"""The embedded runtime: sandboxes as isolated process trees on this machine, with no engine.

::

    hooks.py      the plugin
    config.py     ``[local]``
    runtime.py    the kernel's interface: blocking work on bounded threads, news to those who watch
    keeper.py     the blocking half: what reads, changes or ends sandboxes
    describe.py   texts of the diagnostics routes
    image/        image names, archives and layouts, unpacked roots
    root/         the root of one sandbox: layers, mounts, volumes, what is hidden
    run/          how a sandbox is started, isolated and ended
    network/      the network of a sandbox, and the way into it
    confine/      which system calls a sandbox may make
    agent/        the agent in a sandbox, started with the first need of it
    snapshot/     what sandboxes wrote, kept, and new sandboxes made of it
    limit/        CPU, memory, processes, disk, and the freezer
    state/        what is kept on disk, and what is read from it
"""
