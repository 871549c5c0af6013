"""Processes that run learners' code, with limits, and the values that cross."""
