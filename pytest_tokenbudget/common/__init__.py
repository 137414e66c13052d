"""What every part of the package may use: text, files, names, workers."""
