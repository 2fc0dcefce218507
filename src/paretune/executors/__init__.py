"""Where tasks run. Every executor gives the same answers; only the waiting differs."""
