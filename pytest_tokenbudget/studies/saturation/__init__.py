"""The saturation eval."""
