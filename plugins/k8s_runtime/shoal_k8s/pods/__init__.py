"""Pods: what a plan looks like as one, and what one says of its sandbox.

::

    objects    the fields of a pod that are read
    spec       plan → pod spec: containers, init container, security, placement
    storage    volumes and mounts of the pod spec
    status     pod → phase, reason and message: why it is not scheduled, which image cannot be pulled
    describe   the texts of logs, events and inspect
"""
