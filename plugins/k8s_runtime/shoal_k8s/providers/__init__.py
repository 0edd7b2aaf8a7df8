"""Workload providers: what a sandbox is on the cluster. Found by entry point of the group ``shoal.k8s.providers``.

::

    interface  what a provider implements
    discovery  from the configured name to a provider
    pod        plain pods: nothing to install on the cluster
"""
