"""Batches of texts with guesses against the same batches without."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from minillama.engine.batching.batch_engine import BatchEngine
from minillama.lab.language import translate
from minillama.lab.measuring import measuring
from minillama.lab.widgets.running_line import running

ANIMALS = ("fox", "bear", "girl", "boy", "bird", "cat", "dog", "fish")
PROMPTS = tuple(f"Once upon a time, there was a {animal}" for animal in ANIMALS)


@dataclass(frozen=True)
class BatchGain:
    """Tokens a second with guesses over those without, in each round; drafted and accepted tokens."""

    ratios: tuple[float, ...]
    drafted: int
    accepted: int

    @property
    def ratio(self) -> float:
        """Median of the rounds."""
        return median(self.ratios)


@measuring("batches with guesses of a lab", tells_load=True)
def batch_gains(
    engine: BatchEngine, batches: Sequence[int], guesses: int, *, n: int = 33, rounds: int = 3
) -> Mapping[int, BatchGain]:
    """Run batches of texts with and without guesses, interleaved; the first round compiles.

    engine: with a draft model, and as many slots as the largest batch. Greedy texts of `n` tokens each.
    """
    found = {batch: BatchGain((), 0, 0) for batch in batches}
    with running(translate("batches"), steps=(rounds + 1) * len(batches)) as step:
        for number in range(rounds + 1):
            for batch in batches:
                plain, _, _ = _seconds(engine, batch, 0, n)
                guessed, drafted, accepted = _seconds(engine, batch, guesses, n)
                if number:
                    found[batch] = BatchGain((*found[batch].ratios, plain / guessed), drafted, accepted)
                step()
    return found


def _seconds(engine: BatchEngine, batch: int, guesses: int, n: int) -> tuple[float, int, int]:
    """Seconds of a batch of texts, drafted tokens and accepted ones."""
    started = time.perf_counter()
    streams = [engine.submit(PROMPTS[text], n=n, temp=0.0, ignore_eos=True, draft_max=guesses) for text in range(batch)]
    timings = [stream.finish().timings for stream in streams]
    seconds = time.perf_counter() - started
    return seconds, sum(each.drafted_tokens for each in timings), sum(each.accepted_tokens for each in timings)
