"""The allocation eval."""
