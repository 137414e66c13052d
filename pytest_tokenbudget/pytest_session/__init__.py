"""The steps of a pytest session that uses the plugin."""
