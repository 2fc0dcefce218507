"""What a command does that is no run: export, measure, add tokens, search a merge, doctor."""
