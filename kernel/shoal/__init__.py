"""shoal: a plugin microkernel for sandboxes.

The kernel speaks the OpenSandbox lifecycle API over HTTP and knows no runtime: everything that isolates, authenticates,
routes or renews is a plugin found by entry point (group ``shoal.plugins``) and chosen by configuration. Start reading
at ``shoal.plugin.hookspecs``.
"""

__version__ = "0.1.0"
