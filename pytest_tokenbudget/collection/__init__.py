"""Which tests are evals, and what the selected ones need."""
