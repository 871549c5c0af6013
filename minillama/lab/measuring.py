"""Measure alone on the machine, and know what else computed meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from minillama.measure.host.measurement_lock import machine_lock
from minillama.measure.host.other_load import OtherLoad, load_warning

_loads: list[OtherLoad] = []  # of the measurements under way in this kernel
_last_share: float | None = None


@contextmanager
def measuring(name: str, *, tells_load: bool = False) -> Iterator[None]:
    """Hold the machine's measurement lock during the block; watch the other load.

    A line says which measurement it waits for. A measurement within another one is a part of it. Also a decorator.
    tells_load: whether a line says that other processes used the cores.
    """
    global _last_share
    with machine_lock(name, on_wait=print):
        _loads.append(OtherLoad())
        try:
            yield
        finally:
            _last_share = _loads.pop().share()
            line = load_warning(_last_share, "during the measurement")
            if line and tells_load:
                print(f"{line}.\nClose other programs, and run this cell again.")


def other_load_now() -> float | None:
    """Share of all cores that others used in the measurement under way.

    Or in the last one; None before the first.
    """
    return _loads[0].share() if _loads else _last_share
