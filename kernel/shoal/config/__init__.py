"""Configuration: the kernel's own sections as types, and the loader that validates a file against all sections."""
