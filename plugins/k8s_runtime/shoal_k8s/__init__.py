"""Kubernetes: sandboxes as custom resources or plain pods.

::

    hooks        the plugin
    config       ``[kubernetes]``, ``[agent_sandbox]``, ``[secure_runtime]``
    runtime      the kernel's interface
    truth        expiry and metadata on the cluster, for several servers
    names        labels, annotations and names on the cluster
    api/         requests to the API server: connection, threads, rate limits, errors
    informer/    lists and watches: what the cluster holds, in memory
    waits        what the cluster does in its own time
    providers/   what a sandbox is on the cluster
    pods/        from a plan to a pod, and from a pod to a sandbox's state
    pools/       pools that a controller keeps
    snapshots/   snapshots that a controller makes
    belongings   claims and secrets of a sandbox
    deletion     an object deleted for good, and whether a server or somebody else did it
    failures     creates that failed, kept on the cluster
    diagnostics  texts of a sandbox's pod
    lease        which replica does what only one may do
"""
