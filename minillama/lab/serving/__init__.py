"""Serving many requests: a simulated scheduler, an open loop of arrivals, blocks of a cache."""
