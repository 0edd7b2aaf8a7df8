"""Renewal on access (docs/wire/api.md section 17): through the proxy, and from the gateway's Redis list.

::

    config.py     ``[renew_intent]`` and ``[renew_intent.redis]``
    subjects.py   the sandboxes that opted in, and when each may be renewed again
    intent.py     one signal, and the JSON in which a gateway writes it
    renewer.py    the gates between a signal and a renewal, and the renewal
    redis.py      the connection that comes back, the consumers of the list, the lock across replicas
    ending.py     tasks that talk to Redis, ended
    plugin.py     the parts together
    hooks.py      what the kernel calls
"""
