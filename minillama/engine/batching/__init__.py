"""Continuous batching: many texts at once, on slots of one cache.

`batch_engine.py` has the Python API. Read `Scheduler.turn` in `scheduler.py` first: it is the loop.
"""
