"""Graded item of lab 11: a timer, tested on a coarse clock."""

import math
from dataclasses import dataclass

from minillama.lab.checks.lab00 import SimulatedArray, SimulatedDevice
from minillama.lab.grading.check import Answer, NotYet, as_array, call, graded
from minillama.lab.language import message, translate

LAB = "11"
FEWEST_TICKS, MOST_CALLS = 8, 250  # of a good block of calls between two readings of the clock


@dataclass
class TickingDevice(SimulatedDevice):
    """A simulated device whose clock shows whole ticks.

    A call is shorter than a tick. Call 30 and every 600th after it wait for another program. Inputs may be used again.
    """

    work: float = 0.0004
    compile: float = 2.0
    slow: float = 0.060
    tick: float = 0.001
    waits: int = 0

    def wait(self, until: float) -> None:
        self.waits += 1
        super().wait(until)

    def read_clock(self) -> float:
        self.events.append("clock")
        return self.tick * math.floor(self.now / self.tick)

    def f(self, x: object) -> SimulatedArray:
        if not self.starts:
            self.events.append("compile")
            self.now += self.compile
        self.starts.append(self.now)
        return self.queue(self.slow if len(self.starts) % 600 == 30 else self.work)

    def compiled_inside(self) -> bool:
        """True if the compile is between two paired readings of the clock."""
        return self.events[: self.events.index("compile")].count("clock") % 2 == 1


@graded(LAB, "2. a fair timer")
def fair_time(answer: Answer) -> str:
    """`fair_time(f, x, clock) -> typical seconds of one call f(x)`."""
    for device in (TickingDevice(), TickingDevice(work=0.0003, compile=30.0, slow=0.080)):
        f, _, clock = device.parts()
        got = float(as_array(call(answer, f, [1.0], clock, case=message("the simulated device"))).mean())
        if not device.starts:
            raise NotYet("f was never called")
        if abs(got - device.work) <= 0.12 * device.work:
            if len(device.starts) < 60:
                raise NotYet(
                    translate(
                        "right this time, with {count} calls; one slow call would spoil it", count=len(device.starts)
                    )
                )
            continue
        raise NotYet(_diagnosis(device, got))
    return "no compile time, no missing wait, no outlier and no tick of the clock in your number."


def _diagnosis(device: TickingDevice, got: float) -> str:
    """Message that names the trap of a wrong number."""
    truth, calls = device.work, len(device.starts)
    readings = device.events.count("clock")
    blocks = max(1, readings // 2)
    block = calls / blocks
    shown = translate("you say {got:.3f} ms, the truth is {truth:.3f} ms", got=1e3 * got, truth=1e3 * truth)
    if not readings:
        return shown + translate(": the device has its own time; read it with clock()")
    if got < 0:
        return shown + translate(": is it end minus start?")
    if device.waits < 2:
        return shown + translate(". A call only *queues* work: wait for the result before you read the clock again")
    if device.compiled_inside() and got >= 0.9 * device.compile / calls:
        return shown + translate(". The first call compiles: make it, and wait for it, before the clock starts")
    if block * truth < FEWEST_TICKS * device.tick:
        return shown + translate(
            ". The clock shows whole ticks of {tick:g} ms, and {calls:.3g} calls between two readings are too few of "
            "them: put many calls between them",
            tick=1e3 * device.tick, calls=block,
        )  # fmt: skip
    if got < 0.5 * truth:
        return shown + translate(". Wait for the last result of each block before you read the clock")
    if got > 0.8 * max(blocks, 3) * truth:
        return shown + translate(
            ": is that a sum, or the slowest block? Give the time of one call, and the median of the blocks"
        )
    if block > MOST_CALLS:
        return shown + translate(
            ". Blocks of {calls:.0f} calls are so long that most hold an outlier: shorter blocks, and more", calls=block
        )
    return shown + translate(
        ". A slow call is in one of the blocks, and raises the mean: take the median of the blocks"
    )
