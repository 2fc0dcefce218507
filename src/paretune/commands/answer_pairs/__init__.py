"""`paretune pairs` for language models: draw answers, score them, and write records of preferences."""
