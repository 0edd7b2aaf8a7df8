"""Hooks of the sandbox: one before its command, others on a schedule. `docs/wire/execd.md` section 13."""
