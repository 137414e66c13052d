"""What a run is asked to do: options, configuration files, values."""
