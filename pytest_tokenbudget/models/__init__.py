"""What a model's name means: catalogue, files, thinking formats, prices."""
