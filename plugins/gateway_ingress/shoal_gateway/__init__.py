"""Ingress through a gateway of its own in front of the sandboxes, and the access tokens and signatures that it checks.

``config`` has the sections below ``[ingress]``, and ``setup`` makes of them what is in force; ``signing`` is the layout
of signed routes; ``ingress`` gives clients the gateway's address; ``access`` gives sandboxes their tokens.
"""
