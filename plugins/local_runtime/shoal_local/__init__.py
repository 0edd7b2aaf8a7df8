"""The embedded runtime: sandboxes as isolated process trees on this machine, with no engine."""
