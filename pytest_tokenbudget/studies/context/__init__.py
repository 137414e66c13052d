"""The context eval."""
