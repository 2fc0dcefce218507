"""Other people's models: their code is never run, their chat templates run within limits."""
