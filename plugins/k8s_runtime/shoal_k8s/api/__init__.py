"""Requests to the API server, on bounded threads; nothing here knows what a sandbox is.

::

    connection  where the API server is and how to prove who asks (kubeconfig, service account)
    client      `KubeClient`: one request, rate limited, its failure as an exception that can be branched on
    limits      token buckets for reads and writes
    failures    `KubeApiError`, and the errors that callers get of it
    objects     the few fields of Kubernetes objects that everything here shares
"""

from __future__ import annotations

from shoal_k8s.api.client import KubeClient, Resource
from shoal_k8s.api.failures import ApiUnreachable, KubeApiError
from shoal_k8s.api.objects import ApiStatus, KubeList, Meta

__all__ = ["ApiStatus", "ApiUnreachable", "KubeApiError", "KubeClient", "KubeList", "Meta", "Resource"]
