"""Kubernetes: sandboxes as custom resources or plain pods.

::

    hooks      what the kernel calls
    api/       requests to the API server: connection, threads, rate limits, errors
    informer/  lists and watches: what the cluster holds, in memory
    lease      which replica does what only one may do
"""
