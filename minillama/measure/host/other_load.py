"""Whether the machine does anything else while something is measured."""

import os
import time

import psutil

NOTABLE_SHARE = 0.1  # share of all cores from which on others disturb a measurement


class OtherLoad:
    """Since it was made: what share of all the machine's cores other processes kept busy.

    Programs that this process started and has waited for count as its own. What a hypervisor takes away counts as
    others'. In a container it is still the whole machine that is looked at, where the system shows it.
    """

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """From 0 to 1; of a time shorter than about a tenth of a second it is rough, for the system counts in ticks."""
        passed = time.perf_counter() - self._started
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return min(max(others / (passed * (os.cpu_count() or 1)), 0.0), 1.0)


def other_load(seconds: float = 0.3) -> float:
    """The share of all cores that other processes keep busy now, watched for some seconds."""
    load = OtherLoad()
    time.sleep(seconds)
    return load.share()


def load_warning(share: float, when: str) -> str | None:
    """What to say about it, if anything: `when` is `now`, or `during the measurement`."""
    if share < NOTABLE_SHARE:
        return None
    return f"the machine is busy: other processes took {100 * share:.0f} % of its cores {when}; the figures are too low"


def _busy_seconds() -> float:
    """Of all cores together, since the system started."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in the user's already
    return sum(seconds for name, seconds in times.items() if name not in idle)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
