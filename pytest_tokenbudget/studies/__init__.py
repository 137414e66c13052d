"""The evals, one room each."""
