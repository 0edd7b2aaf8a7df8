"""Sandboxes of an OpenSandbox server for evaluations with Inspect."""
