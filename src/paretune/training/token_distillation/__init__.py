"""Training of reward tokens (RaTE): the loop, the teacher, and what learns."""
