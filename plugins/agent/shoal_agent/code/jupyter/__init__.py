"""A Jupyter server that the image runs: its REST interface, its WebSockets, its kernels as interpreters."""

from __future__ import annotations
