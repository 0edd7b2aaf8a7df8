"""The agent as a folder that runs anywhere: ``python -m shoal_agent.bundle DIR`` builds it (docs/agent.md).

``build`` puts it together, ``interpreter`` finds out what Python is made of here, ``elf`` makes binaries fit to move,
``probe`` and ``compiler`` are run by that Python, in processes of their own.
"""
