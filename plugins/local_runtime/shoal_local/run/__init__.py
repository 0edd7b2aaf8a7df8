"""How a sandbox is started, isolated and ended.

::

    probe.py     which form of isolation works here
    maker.py     one sandbox out of a plan
    program.py   the command, its environment and its directory, out of a plan
    command.py   whether a command can be executed
    scripts.py   the shell scripts that become a sandbox
    launch.py    asking the launcher
    launcher.py  a small program that starts processes in control groups and namespaces
    spawn.py     scripts, control groups, the process, the wait until it runs
    keyring.py   an empty session keyring
    process.py   processes that outlive the server, recognised again
    reaper.py    ending sandboxes, and finding what is left of them
"""
