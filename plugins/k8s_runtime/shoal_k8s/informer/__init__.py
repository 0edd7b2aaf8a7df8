"""Lists and watches: what the cluster holds of one kind, in memory, level-triggered as client-go's reflectors are.

::

    stream    one watch: lines of an answer that does not end, as events
    reflector a thread that lists, then watches, for ever; recovers from lost streams and from versions that are gone
    cache     `Informer`: the objects by name and by index, and who wants to hear of changes
"""

from __future__ import annotations

from shoal_k8s.informer.cache import Changed, DeletedObject, Informer, KubeObject

__all__ = ["Changed", "DeletedObject", "Informer", "KubeObject"]
