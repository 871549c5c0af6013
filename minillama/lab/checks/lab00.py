"""Graded item of lab 00: a benchmark that survives four traps, tried on a simulated device that has no noise."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minillama.lab.grading.check import Answer, NotYet, Score, as_array, call, graded
from minillama.lab.grading.check import score as score_of

LAB = "00"
DISPATCH = 20e-6  # seconds the host needs to ask for something


class SimulatedArray:
    """An array of the simulated device: there when the device has come so far."""

    def __init__(self, device: "Device", at: float) -> None:
        self._device, self._at, self.deleted = device, at, False

    def block_until_ready(self) -> "Ready":
        self._device.wait(self._at)
        return self

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.block_until_ready()
        return np.zeros(1)


@dataclass
class SimulatedDevice:
    """Host and device with a common clock in seconds: asking returns at once, work is queued, waiting takes its time.

    The first call of `f` compiles, `make` needs as long as five calls, and every eighth call of `f` is slow: somebody
    else used the machine. `f` takes over the memory of its input, as a decode step does with its cache.
    """

    work: float = 0.010
    compile: float = 2.0
    make_work: float = 0.050
    slow: float = 0.200
    now: float = 100.0
    busy_until: float = 0.0
    starts: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def wait(self, until: float) -> None:
        self.now = max(self.now, until)

    def queue(self, seconds: float) -> SimulatedArray:
        self.now += DISPATCH
        self.busy_until = max(self.now, self.busy_until) + seconds
        return SimulatedArray(self, self.busy_until)

    def make(self) -> SimulatedArray:
        self.events.append("make")
        return self.queue(self.make_work)

    def parts(
        self,
    ) -> tuple[Callable[[SimulatedArray], SimulatedArray], Callable[[], SimulatedArray], Callable[[], float]]:
        """What a benchmark gets: f, make and the clock."""
        return lambda x: self.f(x), lambda: self.make(), lambda: self.read_clock()

    def read_clock(self) -> float:
        self.events.append("clock")
        return self.now

    def made_inside(self) -> bool:
        """Whether an input was made between the two readings of the clock that belong together."""
        readings = [place for place, event in enumerate(self.events) if event == "clock"]
        return any("make" in self.events[a:b] for a, b in zip(readings[::2], readings[1::2], strict=False))

    def f(self, x: SimulatedArray) -> SimulatedArray:
        if x.deleted:
            raise RuntimeError(
                "Array has been deleted: f takes over the memory of its input, make a new one for each call"
            )
        x.deleted = True
        if not self.starts:
            self.now += self.compile
        self.starts.append(self.now)
        return self.queue(self.slow if len(self.starts) % 8 == 4 else self.work)


@graded(LAB, "1. a benchmark that survives four traps")
def bench(answer: Answer) -> str:
    """`bench(f, make, clock) -> typical seconds of one call f(make())`."""
    for device in (SimulatedDevice(), SimulatedDevice(work=0.003, compile=30.0, make_work=0.030, slow=0.300)):
        got = float(as_array(call(answer, *device.parts(), case="the simulated device")).mean())
        truth, calls = device.work + DISPATCH, len(device.starts)
        if not calls:
            raise NotYet("f was never called")
        if abs(got - truth) <= 0.05 * truth:
            if calls < 6:
                raise NotYet(f"right this time, with {calls} calls; one slow call would spoil it: time at least five")
            continue
        raise NotYet(_diagnosis(device, got, truth, calls))
    return "compile, asynchronous dispatch, outliers and the making of inputs: none of them got into your number."


def _diagnosis(device: SimulatedDevice, got: float, truth: float, calls: int) -> str:
    """Which trap explains the wrong number."""
    shown = f"you say {1e3 * got:.2f} ms, the truth is {1e3 * truth:.2f} ms"
    if got <= 0:
        return f"{shown}: is it end minus start?"
    if got < 0.5 * truth:
        return f"trap 2, asynchronous dispatch: {shown}. That is the time to *ask*; call jax.block_until_ready(result)"
    if got >= 0.9 * device.compile / max(calls, 1):
        return f"trap 1, the compile: {shown}. Call f once, and wait for it, before the clock starts"
    if device.made_inside():
        return f"trap 4, the input: {shown}. Call make() before the clock starts"
    if abs(got - truth - device.make_work) <= 0.2 * truth:
        return f"trap 4, the input: {shown}. make() is asynchronous too: wait for the input, then start the clock"
    if calls > 2 and got > 0.5 * calls * truth:
        return f"{shown}: is that the sum of several calls? Give the time of one"
    if got >= 0.9 * device.slow:
        return f"trap 3, outliers: {shown}. You met a slow call; time several and take the median"
    return f"trap 3, outliers: {shown}. A few slow calls pull the mean up: take the median"


ITEMS = (bench,)


def score() -> Score:
    """Whether it is solved."""
    return score_of(ITEMS)
