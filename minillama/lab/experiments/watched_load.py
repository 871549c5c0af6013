"""Measure a cell of a lab alone, with a line about other programs."""

from contextlib import AbstractContextManager

from minillama.lab.measuring import measuring


def watched_load() -> AbstractContextManager[None]:
    """Hold the measurement lock during the block; print what disturbs it."""
    return measuring("a cell of a lab", tells_load=True)
