"""Language models that write text from left to right."""
