"""Speculative decoding in the labs: models, measured passes, and a sampler to test."""
