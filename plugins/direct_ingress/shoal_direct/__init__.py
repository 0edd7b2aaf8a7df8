"""Ingress without a gateway: the sandbox's own address, or this server's proxy."""
