"""Decisions of the scheduler: which slot, how many tokens of a prompt."""
