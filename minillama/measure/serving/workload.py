"""The requests of a load test: prompts, lengths and arrival times from one seed.

The same seed gives the same requests, so that several servers get the same work. Sampling settings are part of each
request, because the defaults of servers differ. With `ignore_eos` every answer has `max_tokens` tokens.
"""

import random
from dataclasses import dataclass

_TEXT = (
    "once upon a time there was one little girl boy fox bird cat dog bear who lived in the forest near big river "
    "and every day she he went to play with her his best friend they found red ball blue shoe old tree small house "
    "said hello mother made cake sun moon happy sad wanted see next under bridge by door it began sing "
)
WORDS = tuple(_TEXT.split())


@dataclass(frozen=True)
class Workload:
    """Lengths and sampling settings of all requests of a test."""

    prompt_words: tuple[int, int] = (20, 60)  # fewest and most words of a prompt
    shared_words: int = 0  # words that all prompts begin with
    max_tokens: tuple[int, int] = (64, 64)  # fewest and most tokens of an answer
    temp: float = 0.8
    ignore_eos: bool = True
    seed: int = 7


@dataclass(frozen=True)
class PlannedRequest:
    """One request; `at` is its arrival in an open loop, in seconds after the start."""

    prompt: str
    max_tokens: int
    seed: int
    at: float = 0.0


def plan_requests(workload: Workload, count: int, *, rate: float | None = None, run: int = 0) -> list[PlannedRequest]:
    """The requests of one run.

    rate: requests per second of a Poisson process; None: all at 0. run: each run has prompts of its own, so that a
    prompt cache saves only `shared_words`.
    """
    chance = random.Random(f"{workload.seed} {run}")
    shared = random.Random(f"{workload.seed} shared").choices(WORDS, k=workload.shared_words)
    clock, found = 0.0, []
    for number in range(count):
        words = [*shared, *chance.choices(WORDS, k=chance.randint(*workload.prompt_words))]
        found.append(PlannedRequest(" ".join(words), chance.randint(*workload.max_tokens), number + 1, clock))
        if rate is not None:
            clock += chance.expovariate(rate)
    return found
