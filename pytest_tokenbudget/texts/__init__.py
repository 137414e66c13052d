"""Text of models: detokenizing, thinking blocks, sentences."""
