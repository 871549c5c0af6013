"""Measure alone on the machine, and know what else computed meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from minillama.measure.host.measurement_lock import machine_lock
from minillama.measure.host.other_load import OtherLoad, load_warning


@dataclass(frozen=True)
class Span:
    """Times in UTC while the lock was held, and the load of other processes.

    other_load: share of all CPU cores, 0 to 1.
    """

    begun: datetime
    ended: datetime
    other_load: float

    def entries(self) -> dict[str, object]:
        """Values of a record: the load, and both times as ISO 8601 to the microsecond."""
        begun, ended = (time.isoformat(timespec="microseconds") for time in (self.begun, self.ended))
        return {"other_load": round(self.other_load, 3), "begun": begun, "ended": ended}


class _Running:
    """A measurement under way: its beginning, and the load since then."""

    def __init__(self) -> None:
        self._begun, self._load = datetime.now(UTC), OtherLoad()

    def span(self) -> Span:
        return Span(self._begun, datetime.now(UTC), self._load.share())


_running: list[_Running] = []  # in this kernel, within each other
_last: Span | None = None


@contextmanager
def measuring(name: str, *, tells_load: bool = False) -> Iterator[None]:
    """Hold the machine's measurement lock during the block; watch the other load.

    A line says which measurement it waits for. A measurement within another one is a part of it. Also a decorator.
    tells_load: whether a line says that other processes used the cores.
    """
    global _last
    with machine_lock(name, on_wait=print):
        _running.append(_Running())
        try:
            yield
        finally:
            _last = _running.pop().span()
            line = load_warning(_last.other_load, "during the measurement")
            if line and tells_load:
                print(f"{line}.\nClose other programs, and run this cell again.")


def present_span() -> Span | None:
    """The measurement under way, until now; or the last one, None before the first."""
    return _running[0].span() if _running else _last


def other_load_now() -> float | None:
    """Share of all cores that others used in the measurement under way.

    Or in the last one; None before the first.
    """
    span = present_span()
    return span.other_load if span else None
