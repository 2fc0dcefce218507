"""Rewards of real clips: VideoAlign's three, and the judges of VBench that need no training of their own."""
