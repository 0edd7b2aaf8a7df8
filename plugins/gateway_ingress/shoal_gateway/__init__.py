"""Ingress through the gateway: wildcard, uri and header routes, signed or not."""
