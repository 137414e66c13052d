"""An engine that repeats the question, a task that asks for that, and a scorer that is strict."""
