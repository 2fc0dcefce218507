"""Rewards that live elsewhere: the reward server, its client, and judges behind a chat endpoint."""
