"""What a model is given beside a text: the input picture of a prompt."""
