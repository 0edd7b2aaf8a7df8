"""Ingress without a gateway: the sandbox's own address, or this server's proxy.

``hooks`` registers; ``config`` is the section ``[ingress]``; ``ingresses`` holds the two ways in.
"""
