"""A line about other programs that computed during a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager

from minillama.measure.host.other_load import OtherLoad, load_warning


@contextmanager
def watched_load() -> Iterator[None]:
    """Print a line after the block if other processes used CPU cores in it."""
    load = OtherLoad()
    yield
    if line := load_warning(load.share(), "during the measurement"):
        print(f"{line}.\nClose other programs, and run this cell again.")
