"""Renewal on access: through the proxy, and from the gateway's Redis list."""
