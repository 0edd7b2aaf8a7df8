"""Pods: what a plan looks like as one, and what one says of its sandbox.

::

    objects    the fields of a pod that are read
    defaults   what every pod of this server shares
    spec       plan → pod spec: the sandbox's own container, and everything around it
    installer  the init container that brings execd
    sidecars   the containers beside it
    windows    the emulator of a Windows guest
    quantities amounts of resources
    quota      which container a quota refuses a pod for
    placement  platforms, node selectors, what a template file says against them
    storage    volumes and mounts of the pod spec
    secrets    registry credentials
    status     pod → phase, reason and message: why it is not scheduled, which image cannot be pulled
    gate       a filtered sandbox runs nothing before its filter, or after it
    ending     ends pods, those in which something that must not end has ended among them
    describe   the texts of logs, events and inspect
"""
