"""Rewards of real pictures."""
