"""How the world's files were made: prompts, tokenizer, language model, reward models."""
