"""Kernels that learners write: traced, counted, run in a guarded process, timed."""
