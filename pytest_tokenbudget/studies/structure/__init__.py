"""The structure eval."""
