"""The network of one sandbox: a namespace of its own, and the server's way into it.

::

    broker.py    a small program that makes sockets inside namespaces
    client.py    asking it
    namespace.py the namespace of a sandbox, found by its processes
    dialler.py   connected sockets to ports of sandboxes
    modes.py     which network sandboxes get
    filter.py    a packet filter inside
    outward.py   the way to the internet, and what of it is closed
    spares.py    networks made in advance
    names.py     resolver and hosts file inside
"""
