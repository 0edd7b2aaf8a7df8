"""The conformance kit: what a runtime's author runs against their own runtime (docs/conformance.md)."""
