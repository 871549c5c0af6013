"""Speculative decoding: guesses of what may follow, which the model verifies in one pass."""
