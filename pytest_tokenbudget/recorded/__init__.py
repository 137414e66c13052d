"""Readers of existing results, one file a format."""
