"""Safe use of other people's models: their code is never run, and their chat templates run within limits."""
