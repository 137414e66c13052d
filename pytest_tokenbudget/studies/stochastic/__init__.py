"""The stochastic eval."""
