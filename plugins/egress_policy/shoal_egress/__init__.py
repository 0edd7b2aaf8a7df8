"""Egress policy: a sidecar that decides what a sandbox may reach."""
