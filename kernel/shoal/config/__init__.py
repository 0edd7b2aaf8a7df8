"""Configuration: the kernel's own sections as types, and the loader that validates a file against them and the plugins'."""
