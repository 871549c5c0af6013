"""Perplexity of a text: exp of the mean negative log-likelihood of its tokens.

Windows, scored half and error bar are those of llama-perplexity. Only one number per token leaves the device.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minillama.array_types import Float
from minillama.engine.backends.finite import check_finite
from minillama.engine.backends.programs import text_programs
from minillama.engine.compile.compile_timer import Stopwatch
from minillama.engine.llm import LLM
from minillama.measure.quality.text_windows import (
    Stop,
    Windows,
    chunked,
    hidden_states,
    never_stop,
    strided,
)


@dataclass(frozen=True)
class Estimate:
    """Perplexity of the windows so far.

    `error` treats tokens as independent; it does not include the difference between texts. To compare two models on
    one text, use the paired statistics of `kl_divergence`.
    """

    chunk: int  # windows so far
    chunks: int  # in all
    ppl: float
    error: float  # standard error of ppl
    nll: float  # mean negative log-likelihood of a token, in nats
    count: int  # scored tokens so far
    seconds: float  # since the start, without compile time

    @property
    def nll_error(self) -> float:
        """Standard error of nll."""
        return self.error / self.ppl


class Tally:
    """Running sums over scored tokens, in float64."""

    def __init__(self, chunks: int) -> None:
        self._chunks, self._chunk, self._count = chunks, 0, 0
        self._sum = self._squares = self._seconds = 0.0

    def add(self, nll: Float[np.ndarray, "tokens"], seconds: float) -> Estimate:
        """Add the tokens of one window and return the new estimate.

        Raises NonFiniteError if the model computes NaN or infinite logits.
        """
        check_finite(nll)
        values = nll.astype(np.float64)
        self._chunk, self._count = self._chunk + 1, self._count + len(values)
        self._sum, self._squares = self._sum + values.sum(), self._squares + np.square(values).sum()
        self._seconds += seconds
        mean = self._sum / self._count
        variance = max(0.0, self._squares / self._count - mean * mean)
        error = math.sqrt(variance / (self._count - 1)) if self._count > 1 else 0.0
        ppl = exp(mean)
        return Estimate(self._chunk, self._chunks, ppl, ppl * error, float(mean), self._count, self._seconds)


def exp(nats: float) -> float:
    """exp of a number of nats; infinity where no float is large enough."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def running_perplexity(
    llm: LLM,
    ids: Sequence[int],
    *,
    ctx_size: int = 512,
    chunks: int | None = None,
    stride: int = 0,
    stop: Stop = never_stop,
) -> Iterator[Estimate]:
    """The perplexity of a tokenised text, refined with every window.

    ctx_size: tokens per window; the second half is scored. chunks: maximum number of windows. stride: if above 0,
    windows overlap and the last `stride` tokens of each are scored. stop: checked before each pass; true ends it.
    Raises OptionError for less than two windows of text, UnsupportedError for models that append EOS to every text.
    """
    windows = chunked(llm, ids, ctx_size, chunks) if not stride else strided(llm, ids, stride, ctx_size, chunks)
    return estimates(llm, windows, stop)


def perplexity(llm: LLM, text: str, *, ctx_size: int = 512, chunks: int | None = None, stride: int = 0) -> Estimate:
    """The perplexity of a text; see `running_perplexity`."""
    *_, last = running_perplexity(llm, llm.tokenizer.encode(text), ctx_size=ctx_size, chunks=chunks, stride=stride)
    return last


def estimates(llm: LLM, windows: Windows, stop: Stop = never_stop) -> Iterator[Estimate]:
    """The perplexity of windows, refined with each window."""
    tally, found, stopwatch = Tally(windows.count), [], Stopwatch()
    for piece in hidden_states(llm, windows, stop):
        found.append(
            np.asarray(llm.backend.call(text_programs.nll, piece.states, piece.of(windows.targets), piece.first))
        )
        if piece.stop == windows.scored:
            seconds = stopwatch.seconds() / piece.count
            for row in np.concatenate(found, axis=1)[: piece.count]:
                yield tally.add(row, seconds)
            found = []
