"""The root file system of one sandbox.

::

    blueprint.py   what is the same for every sandbox of one image
    assembly.py    the directories and mounts of one sandbox
    mounts.py      mounts, as mount(8) and bubblewrap take them
    binds.py       volumes among the mounts, each checked to be the right one
    volumes.py     host volumes as callers name them
    paths.py       paths inside a root that is not this process's own
    secrets.py     what of this machine no sandbox may see
"""
