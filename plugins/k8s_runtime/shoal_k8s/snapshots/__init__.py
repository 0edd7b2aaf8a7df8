"""Snapshots that a controller on the cluster makes, as ``SandboxSnapshot`` resources of ``sandbox.opensandbox.io``.

::

    objects   the fields of a SandboxSnapshot, and the image that a finished one stands for
    catalogue every SandboxSnapshot of the namespace
    preflight whether a running sandbox can be captured
    captures  has them made, waits for them, removes them
"""
