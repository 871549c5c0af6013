"""From the pieces of running completions to JSON answers and server-sent events."""
