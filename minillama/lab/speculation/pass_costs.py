"""Seconds of a pass over a token and guesses, and of the guesses themselves."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import truediv
from statistics import median

import numpy as np

from minillama.engine.drafting.guesser import DraftText
from minillama.engine.llm import LLM
from minillama.engine.session import pass_size
from minillama.lab.language import translate
from minillama.lab.measuring import measuring
from minillama.lab.widgets.running_line import running
from minillama.sampling import Sampling

PROMPT = "Once upon a time, there was a little fox."
GUESS = 3  # tokens


@dataclass(frozen=True)
class RowCosts:
    """Seconds of a pass in each round, by its rows (tokens).

    guesses: seconds of each guessed token of the draft model in the same rounds; empty without one.
    """

    rounds: Mapping[int, Sequence[float]]
    guesses: Sequence[float] = ()

    @property
    def draft(self) -> float:
        """Cost of a guessed token in passes of one row; 0 without a draft model."""
        return median(map(truediv, self.guesses, self.rounds[1])) if self.guesses else 0.0

    @property
    def rows(self) -> list[int]:
        """The measured numbers of rows, the smallest first."""
        return sorted(self.rounds)

    def ratios(self, rows: int) -> list[float]:
        """The pass over that of one row, in each round."""
        return [long / short for long, short in zip(self.rounds[rows], self.rounds[1], strict=True)]

    def ratio(self, rows: int) -> float:
        """Time of a pass over that of one row: the median of the rounds."""
        return median(self.ratios(rows))

    def cost(self, rows: int) -> float:
        """The ratio of any number of rows, padded to a power of two.

        Beyond the largest measured pass it grows as between the two largest ones.
        """
        size = pass_size(rows)
        if size in self.rounds:
            return self.ratio(size)
        one, two = self.rows[-2:]
        return self.ratio(two) + (size - two) * (self.ratio(two) - self.ratio(one)) / (two - one)


@measuring("passes over guesses of a lab", tells_load=True)
def pass_costs(llm: LLM, rows: Sequence[int] = (1, 2, 4, 8), *, rounds: int = 21) -> RowCosts:
    """Time passes of a token and guesses, and guesses of the draft model.

    Each round runs all of them.
    rows: powers of two, with 1. The guesses are wrong, and the sampler takes the likeliest token.
    """
    ids = llm.tokenizer.encode(PROMPT)
    run = _passes(llm, ids)
    work: dict[int, Callable[[], None]] = {size: partial(run, size) for size in rows}
    if llm.draft is not None:
        work[0] = _guesses(llm, ids)
    times: dict[int, list[float]] = {size: [] for size in work}
    with running(translate("passes"), steps=rounds + 1) as step:
        for number in range(rounds + 1):
            for size, call in work.items():
                started = time.perf_counter()
                call()
                if number:  # the first round compiles
                    times[size].append(time.perf_counter() - started)
            step()
    guesses = [seconds / GUESS for seconds in times.pop(0, [])]
    return RowCosts(times, guesses)


def _passes(llm: LLM, ids: Sequence[int]) -> Callable[[int], None]:
    """A function that runs a pass of some rows after a prompt, and waits."""
    session, chain = llm.session(), llm.backend.chain(Sampling(temp=0.0))
    for _ in session.prefill(ids[:-1], with_logits=False):
        pass
    state = session.start(chain, 0, ids)

    def run(rows: int) -> None:
        nonlocal state
        result, state = session.generate(chain, state, ids[-1], [0] * (rows - 1))
        np.asarray(result.tokens)

    return run


def _guesses(llm: LLM, ids: Sequence[int]) -> Callable[[], None]:
    """A function that guesses `GUESS` tokens after a prompt."""
    guesser = llm.session().guesser
    assert guesser is not None
    text = DraftText(0, ids, GUESS)
    while guesser.lacks(text):
        guesser.read(text)

    def run() -> None:
        guesser.guess([text])

    return run
