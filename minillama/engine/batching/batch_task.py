"""A request inside the engine: its prompt, its sampler, its text so far, its timings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minillama.engine.backends.finite import non_finite
from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.batching.executor import SampledToken
from minillama.engine.generation.answer import Answer
from minillama.engine.generation.text_request import TextRequest
from minillama.engine.result import Reason, Timings
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.chat.answer_parts import Splitter, Uncut

UNCUT = Uncut()


@dataclass(frozen=True)
class SubmitOptions:
    """The options of `BatchEngine.submit` that `generate` does not have."""

    cache_prompt: bool = True  # go on from a beginning that a slot holds
    slot: int | None = None  # wait for this slot; None for any
    splitter: Splitter = UNCUT
    n_probs: int = 0  # likeliest tokens of each position
    post_sampling_probs: bool = False  # their probabilities after the sampler chain
    time_limit: float | None = None  # seconds from the first token on
    on_change: Callable[[BatchStream], None] | None = None


class BatchTask:
    """One request; only the engine's thread changes it. It writes its news into `stream`."""

    def __init__(
        self,
        stream: BatchStream,
        text: TextRequest,
        options: SubmitOptions,
        chain: Any,
        tokenizer: Tokenizer,
        now: float,
    ) -> None:
        self.stream, self.options, self.chain = stream, options, chain
        self.ids, self.request, self.seed = text.ids, text.request, stream.seed
        self.add_bos = tokenizer.add_bos
        self._answer = Answer(
            tokenizer, text, options.splitter, options.n_probs, post_sampling_probs=options.post_sampling_probs
        )
        self.allowed = self._answer.allowed  # tokens that may come next, as bits; None for all
        self._submitted = self._began = self._last = now
        self._first_at: float | None = None

    @property
    def number(self) -> int:
        """Its place in the order of arrival."""
        return self.stream.number

    @property
    def is_constrained(self) -> bool:
        """Whether a grammar or a budget of thoughts rules the text, now or later."""
        return self._answer.has_grammar

    @property
    def shifts(self) -> bool:
        """Whether a full context drops its older half, so that the text goes on."""
        return self._answer.shifts

    @property
    def prompt_seconds(self) -> float:
        """Seconds from the slot to the first token."""
        return 0.0 if self._first_at is None else self._first_at - self._began

    @property
    def generated_seconds(self) -> float:
        """Seconds of the tokens after the first."""
        return sum(self._answer.token_seconds, 0.0)

    def begin(self, slot: int, cached: int, now: float) -> None:
        """The task has a slot that holds the first `cached` tokens of its prompt."""
        self._began = now
        self.stream.begin(slot, cached, now - self._submitted)

    def accept(self, sampled: SampledToken, now: float, *, is_full: bool) -> Reason | None:
        """Add a token; the reason if it is the last one.

        is_full: whether there is no room to run it. Raises NonFiniteError where a logit is NaN or infinite, OptionError
        where the grammar allows no token.
        """
        if not math.isfinite(sampled.logprob):
            raise non_finite()
        is_first = self._first_at is None
        if is_first:
            self.stream.progress(1)  # the last token of the prompt
        self._first_at = now if self._first_at is None else self._first_at
        seconds = now - (self._submitted if is_first else self._last)
        self._last = now
        piece = self._answer.add(
            sampled.token, sampled.logprob, seconds, sampled.report, is_full=is_full, is_late=self._is_late
        )
        reason = self._answer.reason
        if reason is None:
            self.allowed = self._answer.allowed
        self.stream.deliver(piece)
        if reason is not None:
            self.stream.stop_string = self._answer.stop_string
            self.end(reason, now)
        return reason

    def end(self, reason: Reason, now: float) -> None:
        """The text is complete, or was cancelled."""
        self._answer.end(reason)
        timings = Timings(
            load=0.0,
            compile=0.0,
            prompt=self.prompt_seconds,
            first_token=self._answer.first_seconds,
            total=now - self._submitted,
            prompt_tokens=self.stream.read_tokens - self.stream.cached_tokens,
            generated_tokens=len(self._answer),
            token_seconds=tuple(self._answer.token_seconds),
            drafted_tokens=self.stream.drafted_tokens,
            accepted_tokens=self.stream.accepted_tokens,
        )
        self.stream.end(self._answer.completion(len(self.ids), self.seed, timings))

    def fail(self, error: Exception) -> None:
        """The text cannot go on."""
        self.stream.fail(error)

    @property
    def _is_late(self) -> bool:
        limit = self.options.time_limit
        return limit is not None and self._first_at is not None and self._last - self._first_at > limit
