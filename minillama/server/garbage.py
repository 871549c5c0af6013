"""Garbage collection in the process of a server.

A request that fails leaves a cycle: its exception, the frames of its traceback, and in these the body of the request.
With the hundred thousands of objects of a model among the others, Python would look for such cycles so rarely that
bodies of megabytes pile up.
"""

import gc

THRESHOLDS = (700, 10, 10)  # Python's own; commands begin with larger ones


def begin_collecting() -> None:
    """Leave the objects of now out of all collections, and collect the others often."""
    gc.freeze()
    gc.collect()  # how often all others are collected depends on the number that this one finds
    gc.set_threshold(*THRESHOLDS)


def collect_everything() -> None:
    """Collect once among all objects, those of `begin_collecting` included."""
    gc.unfreeze()
    gc.collect()
