"""Limits of one core: bytes a second from memory, and cycles a second."""

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from minillama.kernels.cpu.runtime.machine_code import callable_at, compile_kernels
from minillama.kernels.cpu.runtime.registry import chosen_isa
from minillama.kernels.cpu.simd import I64, Module, Value, Var, const, load, loop, opaque, prefetch, reduce
from minillama.lab.language import translate
from minillama.lab.measuring import measuring

CHAIN = 32  # dependent additions of a step
STEPS = 200_000
BUFFER = 144 << 20  # bytes: as many as the matrix of `timed_products`, so that a cache holds as much of both
LINE, AHEAD = 64, 2048  # bytes of a cache line, and of the distance of a prefetch
STREAMS = 4  # distant places that are read in turn


@dataclass(frozen=True)
class CoreLimits:
    """Bytes and cycles of one core in a second."""

    bandwidth: float  # bytes read from memory, at several places in turn
    frequency: float  # cycles
    one_stream: float = 0.0  # bytes read from memory, one after the other

    def memory_rate(self, bytes_per_weight: float) -> float:
        """Weights a second that memory delivers."""
        return self.bandwidth / bytes_per_weight

    def core_rate(self, instructions: float, per_cycle: float) -> float:
        """Weights a second that the core computes."""
        return self.frequency * per_cycle / instructions


def measure_core() -> CoreLimits:
    """Measure one core, under the machine's lock."""
    with measuring("limits of one core"):
        one, several = measured_reads(1), measured_reads(STREAMS)
        return CoreLimits(max(one, several), measured_frequency(), one)


def measured_reads(streams: int, *, size: int = BUFFER, passes: int = 8) -> float:
    """Bytes a second that one core reads from some distant streams.

    The best of several passes. It combines the bytes by XOR, and prefetches if there are several streams.
    """
    read, buffer = callable_at(_reader(streams), 2), np.ones(size // 8, np.int64)
    lines, best = size // LINE // streams, float("inf")
    for _ in range(passes):
        started = time.perf_counter()
        read(buffer.ctypes.data, lines)
        best = min(best, time.perf_counter() - started)
    return lines * streams * LINE / best


@cache
def _reader(streams: int) -> int:
    """Address of `read(address, lines of a stream)`."""

    def body(address: Value, lines: Value) -> Value:
        sums = [Var(const(0, I64, 8)) for _ in range(streams)]
        for line in loop(0, lines):
            for stream, total in enumerate(sums):
                at = address + (lines * stream + line) * LINE
                if streams > 1:
                    prefetch(at + AHEAD)
                total.value = total.value ^ load(I64, 8, at)
        found = sums[0].value
        for total in sums[1:]:
            found = found ^ total.value
        return reduce(found, lambda a, b: a ^ b)

    def write(module: Module) -> None:
        module.define("read", 2, body)

    return compile_kernels("reads", chosen_isa(), write, None)("read")


def measured_frequency(repetitions: int = 7) -> float:
    """Cycles a second, from a chain of dependent additions.

    Each link waits for the one before, and takes a cycle. The summand is in a register, because some processors add
    constants for nothing.
    """
    chain = callable_at(_chain(), 2)
    best = float("inf")
    for _ in range(repetitions):
        started = time.perf_counter()
        chain(STEPS, 3)
        best = min(best, time.perf_counter() - started)
    return CHAIN * STEPS / best


@cache
def _chain() -> int:
    """Address of `chain(steps, summand)`."""

    def body(steps: Value, summand: Value) -> Value:
        total = Var(summand)
        for _ in loop(0, steps):
            value = total.value
            for _ in range(CHAIN):
                value = opaque(value + summand)
            total.value = value
        return total.value

    def write(module: Module) -> None:
        module.define("chain", 2, body)

    return compile_kernels("cycles", chosen_isa(), write, None)("chain")


def limit_sentence(name: str, instructions: float, allowed: float) -> str:
    """A line on the limit of a kernel, from its counts."""
    line = translate(
        "{name}: {instructions:.2f} instructions a weight, {allowed:.2f} allowed: ",
        name=name, instructions=instructions, allowed=allowed,
    )  # fmt: skip
    if instructions < allowed / 1.25:
        return line + translate("memory should be the limit")
    if instructions > allowed * 1.25:
        share = allowed / instructions
        return line + translate("the core should be the limit, at {share:.0%} of what memory gives", share=share)
    return line + translate("too near to say which limit is the lower one")
