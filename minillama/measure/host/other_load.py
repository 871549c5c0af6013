"""CPU load of other processes during a measurement."""

import os
import time

import psutil

NOTABLE_SHARE = 0.1  # share of all cores from which other load disturbs a measurement


class OtherLoad:
    """Share of all CPU cores that other processes have used since this object was created.

    Child processes that this process has waited for count as its own. Time that a hypervisor takes away counts as
    other load. In a container the share is that of the whole machine, if the system shows it.
    """

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """The share, 0 to 1; inexact for less than about 0.1 s."""
        passed = time.perf_counter() - self._started
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return min(max(others / (passed * (os.cpu_count() or 1)), 0.0), 1.0)


def other_load(seconds: float = 0.3) -> float:
    """Share of all CPU cores that other processes use now, observed for some seconds."""
    load = OtherLoad()
    time.sleep(seconds)
    return load.share()


def load_warning(share: float, when: str) -> str | None:
    """A warning about a notable share, or None; `when` is `now` or `during the measurement`."""
    if share < NOTABLE_SHARE:
        return None
    return f"other processes used {100 * share:.0f} % of the CPU cores {when}; the measured speeds are too low"


def _busy_seconds() -> float:
    """CPU seconds of all cores since the system started."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guest time is part of user time
    return sum(seconds for name, seconds in times.items() if name not in idle)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
