"""The command line: argument parsing in `main`, and one module a command."""
