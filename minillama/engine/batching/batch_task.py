"""A request inside the engine: its prompt, its sampler, its text so far, its timings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt32

from minillama.engine.backends.finite import non_finite
from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.batching.executor import SampledToken
from minillama.engine.generation.text_output import TextOutput
from minillama.engine.generation.text_request import TextRequest
from minillama.engine.grammar import Constraint
from minillama.engine.result import Completion, Piece, Reason, Timings, TokenProb
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
        self._grammar: Constraint | None = None
        self.allowed: UInt32[np.ndarray, W] | None = None  # tokens that may come next, as bits; None for all
        if text.grammar is not None:
            has_ends = bool(tokenizer.eog) and not text.request.ignore_eos
            self._grammar = Constraint(text.grammar, has_ends=has_ends)
            self.allowed = self._grammar.allowed
        self._output = TextOutput(tokenizer, text.request.stop, text.request.ignore_eos, options.splitter)
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[tuple[TokenProb, ...]] = []
        self._token_seconds: list[float] = []
        self._submitted = self._began = self._last = now
        self._first_at: float | None = None

    @property
    def number(self) -> int:
        """Its place in the order of arrival."""
        return self.stream.number

    @property
    def shifts(self) -> bool:
        """Whether a full context drops its older half, so that the text goes on."""
        return self.request.context_shift and self.request.n != -2

    @property
    def prompt_seconds(self) -> float:
        """Seconds from the slot to the first token."""
        return 0.0 if self._first_at is None else self._first_at - self._began

    @property
    def generated_seconds(self) -> float:
        """Seconds of the tokens after the first."""
        return sum(self._token_seconds, 0.0)

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
        if self._first_at is None:
            self._first_at = now
            seconds = now - self._submitted
        else:
            seconds = now - self._last
            self._token_seconds.append(seconds)
        self._last = now
        self._tokens.append(sampled.token)
        self._logprobs.append(sampled.logprob)
        shown = self._output.push(sampled.token)
        if self._grammar is not None:
            self._grammar.accept(sampled.token)
        reason = self._why_stop(is_full)
        if self._grammar is not None and reason is None:
            self.allowed = self._grammar.allowed
        if reason is not None:
            shown += self._output.end(reason)
        likely = self._likely(sampled)
        piece = Piece(shown.text, sampled.token, sampled.logprob, seconds, shown.reasoning_content, *likely)
        self.stream.deliver(piece)
        if reason is not None:
            self.stream.stop_string = self._output.found or ""
            self.end(reason, now)
        return reason

    def _likely(self, sampled: SampledToken) -> tuple[tuple[TokenProb, ...], float | None]:
        """The likeliest tokens, and the sampled one's log-probability after the chain, where they are wanted."""
        if not self.options.n_probs or sampled.report is None:
            return (), None
        self._top.append(sampled.report.likeliest(self.options.n_probs))
        return self._top[-1], sampled.report.chosen if self.options.post_sampling_probs else None

    def end(self, reason: Reason, now: float) -> None:
        """The text is complete, or was cancelled."""
        if reason is Reason.INTERRUPTED:
            self._output.end(reason)
        self.stream.end(self._completion(reason, now))

    def fail(self, error: Exception) -> None:
        """The text cannot go on."""
        self.stream.fail(error)

    def _why_stop(self, is_full: bool) -> Reason | None:
        if self._output.ended or (self._grammar is not None and self._grammar.is_over):
            return Reason.STOP
        if self._output.found is not None:
            return Reason.WORD
        if 0 < self.request.n <= len(self._tokens) or self._is_late:
            return Reason.LIMIT
        if is_full and not self.shifts:
            return Reason.LENGTH
        return None

    @property
    def _is_late(self) -> bool:
        limit = self.options.time_limit
        return limit is not None and self._first_at is not None and self._last - self._first_at > limit

    def _completion(self, reason: Reason, now: float) -> Completion:
        first = 0.0 if self._first_at is None else self._first_at - self._submitted
        return Completion(
            text=self._output.text,
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            reason=reason,
            prompt_tokens=len(self.ids),
            seed=self.seed,
            reasoning_content=self._output.reasoning_content,
            top=tuple(self._top),
            timings=Timings(
                load=0.0,
                compile=0.0,
                prompt=self.prompt_seconds,
                first_token=first,
                total=now - self._submitted,
                prompt_tokens=self.stream.read_tokens - self.stream.cached_tokens,
                generated_tokens=len(self._tokens),
                token_seconds=tuple(self._token_seconds),
            ),
        )
