"""Files that a sandbox may change while the server, perhaps as root, works on them: by descriptors, not by names."""
