"""Docker and Podman: sandboxes as containers of one engine."""
