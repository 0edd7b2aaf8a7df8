"""API keys in the ``OPEN-SANDBOX-API-KEY`` header."""
