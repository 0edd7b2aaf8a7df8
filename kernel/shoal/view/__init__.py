"""The in-memory index that every read is answered from; runtimes feed it through the lifecycle."""
