"""Between a prompt and a judged cut: traces, store, plans, studies."""
