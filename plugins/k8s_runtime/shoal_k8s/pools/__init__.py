"""Pools that a controller on the cluster keeps, as ``Pool`` resources of ``sandbox.opensandbox.io``.

::

    objects   the fields of a Pool, and what a BatchSandbox says of the pods that it got from one
    native    the ``/pools`` API
    template  what a pod template through the API may ask for
    pooled    sandboxes that are taken from a pool: which plans can be, what their object says
"""
