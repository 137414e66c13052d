"""The thinking eval."""
