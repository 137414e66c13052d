"""The errors eval."""
