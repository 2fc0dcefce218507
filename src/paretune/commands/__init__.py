"""What commands other than `run` do: export, eval and score, tokens, merge by search, doctor."""
