"""The tokenizers eval."""
