"""The rewards and judges of the embedded worlds."""
