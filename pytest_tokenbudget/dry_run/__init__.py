"""What a run would generate, without loading a model."""
