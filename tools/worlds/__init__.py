"""How the checkpoints of the embedded worlds were made. Not in the wheel."""
