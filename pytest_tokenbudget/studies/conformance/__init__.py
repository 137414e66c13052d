"""The conformance eval."""
