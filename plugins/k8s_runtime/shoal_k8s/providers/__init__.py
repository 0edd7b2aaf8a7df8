"""Workload providers: what a sandbox is on the cluster. Found by entry point of the group ``shoal.k8s.providers``.

::

    interface      what a provider implements
    discovery      from the configured name to a provider
    pod            plain pods: nothing to install on the cluster
    custom         what the providers on custom resources share
    batch_objects  the fields of a BatchSandbox
    batchsandbox   one BatchSandbox each
    agent_sandbox  one agent-sandbox Sandbox each
    wishes         what a BatchSandbox was asked to become, and how far its controller is
    edits          changes that depend on what an object says
    template       template files, merged under every object
"""
