"""The cliff eval."""
