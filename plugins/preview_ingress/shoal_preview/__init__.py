"""Preview hosts: ``{port}-{id}.example.com`` is a port of a sandbox, on this server itself.

A web application has an origin of its own there, so that absolute paths, cookies and WebSockets work as it was written.
``config`` is the section, ``hosts`` the names, ``links`` what makes a name a signed link, ``keyfile`` its key, and
``ingress`` what the kernel asks.
"""
