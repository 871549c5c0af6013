"""Graded item of lab 00: a benchmark, tested on a simulated device without noise."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minillama.lab.grading.check import Answer, NotYet, Score, as_array, call, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.language import message, translate

LAB = "00"
DISPATCH = 20e-6  # seconds of the host per asynchronous call


class SimulatedArray:
    """An array of the simulated device, ready at a given time."""

    def __init__(self, device: "SimulatedDevice", at: float) -> None:
        self._device, self._at, self.deleted = device, at, False

    def block_until_ready(self) -> "SimulatedArray":
        self._device.wait(self._at)
        return self

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.block_until_ready()
        return np.zeros(1)


@dataclass
class SimulatedDevice:
    """A simulated host and device with a common clock in seconds.

    Calls return at once and queue work; waiting advances the clock. The first call of `f` compiles, `make` takes as
    long as five calls, and every eighth call of `f` is slow, as with other load on the machine. `f` takes over the
    memory of its input, as a decode step does with its cache.
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
        """Arguments of a benchmark: f, make and the clock."""
        return lambda x: self.f(x), lambda: self.make(), lambda: self.read_clock()

    def read_clock(self) -> float:
        self.events.append("clock")
        return self.now

    def made_inside(self) -> bool:
        """True if an input was made between two paired readings of the clock."""
        readings = [place for place, event in enumerate(self.events) if event == "clock"]
        return any("make" in self.events[a:b] for a, b in zip(readings[::2], readings[1::2], strict=False))

    def f(self, x: SimulatedArray) -> SimulatedArray:
        if x.deleted:
            raise RuntimeError(
                translate("Array has been deleted: f takes over the memory of its input, make a new one for each call")
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
        got = float(as_array(call(answer, *device.parts(), case=message("the simulated device"))).mean())
        truth, calls = device.work + DISPATCH, len(device.starts)
        if not calls:
            raise NotYet("f was never called")
        if abs(got - truth) <= 0.05 * truth:
            if calls < 6:
                raise NotYet(
                    translate(
                        "right this time, with {calls} calls; one slow call would spoil it: time at least five",
                        calls=calls,
                    )
                )
            continue
        raise NotYet(_diagnosis(device, got, truth, calls))
    return "your number contains no compile time, asynchronous dispatch, outliers or input time."


def _diagnosis(device: SimulatedDevice, got: float, truth: float, calls: int) -> str:
    """Message that names the trap of a wrong number."""
    shown = translate("you say {got:.2f} ms, the truth is {truth:.2f} ms", got=1e3 * got, truth=1e3 * truth)
    return translate(_trap(device, got, truth, calls), shown=shown)


def _trap(device: SimulatedDevice, got: float, truth: float, calls: int) -> str:
    """The diagnosis, with {shown} in the place of both numbers."""
    if "clock" not in device.events:
        return message(
            "{shown}: the device is simulated and has its own time; read it with clock(), not with time.perf_counter()"
        )
    if got <= 0:
        return message("{shown}: is it end minus start?")
    if got < 0.5 * truth:
        return message(
            "trap 2, asynchronous dispatch: {shown}. The call only *queues* work; use jax.block_until_ready(result)"
        )
    if got >= 0.9 * device.compile / max(calls, 1):
        return message("trap 1, the compile: {shown}. Call f once, and wait for it, before the clock starts")
    if device.made_inside():
        return message("trap 4, the input: {shown}. Call make() before the clock starts")
    if abs(got - truth - device.make_work) <= 0.2 * truth:
        return message(
            "trap 4, the input: {shown}. make() is asynchronous too: wait for the input, then start the clock"
        )
    if calls > 2 and got > 0.5 * calls * truth:
        return message("{shown}: is that the sum of several calls? Give the time of one")
    if got >= 0.9 * device.slow:
        return message("trap 3, outliers: {shown}. You met a slow call; time several and take the median")
    return message("trap 3, outliers: {shown}. A few slow calls pull the mean up: take the median")


ITEMS = (bench,)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
