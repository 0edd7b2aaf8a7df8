"""A shoal plugin: lifecycle transitions as JSON lines."""
