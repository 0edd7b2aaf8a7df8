"""Sandboxes as containers of a Docker engine, or of Podman behind the same API.

``hooks`` registers; ``config`` is ``[docker]`` and ``[secure_runtime]``; ``runtime`` is the kernel's interface. Below:

=============  =====================================================================================
``engine``     the engine's API on bounded threads, its errors in our terms
``labels``     names and labels, written and read
``census``     which containers are sandboxes; ``observe`` what they show; ``adoption`` whose they were
``watcher``    the engine's events as changes
``maker``      create, out of what ``assembly`` prepares, as ``bodies`` puts it, beside ``sidecars``
``freezer``    pause and resume; ``remover`` removal; ``diagnostics`` texts
=============  =====================================================================================
"""
