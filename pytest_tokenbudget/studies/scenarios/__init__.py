"""The scenarios eval."""
