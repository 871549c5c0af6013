"""An open loop on a batch engine in this process, with Poisson arrivals."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.result import State

SAMPLE_SECONDS = 0.004


@dataclass(frozen=True)
class OpenLoopRun:
    """The times of all requests of one run, in seconds."""

    rate: float  # wanted arrivals a second
    seconds: float  # from the first arrival to the last end
    first_tokens: tuple[float, ...]
    totals: tuple[float, ...]  # in the system: from arrival to end
    in_flight: float  # mean number of requests in the system, counted every few milliseconds

    @property
    def throughput(self) -> float:
        """Requests that ended, a second."""
        return len(self.totals) / self.seconds

    @property
    def mean_total(self) -> float:
        """Mean seconds in the system."""
        return float(np.mean(self.totals))


class _Times:
    """Times of one request; the engine's thread calls `changed`."""

    def __init__(self) -> None:
        self.sent = time.perf_counter()
        self.first: float | None = None
        self.end: float | None = None

    def changed(self, stream: BatchStream) -> None:
        now = time.perf_counter()
        if self.first is None and stream.state in (State.GENERATING, State.DONE):
            self.first = now
        if stream.state is State.DONE:
            self.end = now


def run_open_loop(
    engine: BatchEngine, prompts: Sequence[str], rate: float, *, count: int = 40, n: int = 24, seed: int = 13
) -> OpenLoopRun:
    """Send `count` requests at Poisson arrivals, and wait for all.

    prompts: used in turn. n: tokens of each answer. Raises the error of a request that failed.
    """
    waits = np.random.default_rng(seed).exponential(1 / rate, count)
    found: list[_Times] = []
    counts: list[int] = []
    ended = threading.Event()

    def count_requests() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            counts.append(sum(times.end is None for times in list(found)))

    counter = threading.Thread(target=count_requests)
    streams, due = [], time.perf_counter()
    counter.start()
    try:
        for number, wait in enumerate(waits.tolist()):
            due += wait
            time.sleep(max(0.0, due - time.perf_counter()))
            times = _Times()
            found.append(times)
            prompt = prompts[number % len(prompts)]
            options = {"n": n, "seed": number, "ignore_eos": True}
            streams.append(engine.submit(prompt, on_change=times.changed, cache_prompt=False, **options))  # type: ignore[arg-type]
        for stream in streams:
            stream.finish()
    finally:
        ended.set()
        counter.join()
    ends = [times.end or time.perf_counter() for times in found]
    return OpenLoopRun(
        rate=rate,
        seconds=max(ends) - found[0].sent,
        first_tokens=tuple((times.first or end) - times.sent for times, end in zip(found, ends, strict=True)),
        totals=tuple(end - times.sent for times, end in zip(found, ends, strict=True)),
        in_flight=float(np.mean(counts)) if counts else 0.0,
    )
