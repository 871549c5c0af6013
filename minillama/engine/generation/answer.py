"""The answer to one request: tokens in, pieces of text out, its end."""

from typing import TYPE_CHECKING

import numpy as np

from minillama.array_types import UInt32
from minillama.engine.generation.text_output import TextOutput
from minillama.engine.generation.text_request import TextRequest
from minillama.engine.generation.top_probs import ReportedTop
from minillama.engine.result import Completion, Piece, Reason, Timings, TokenProb
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.chat.answer_parts import Splitter

if TYPE_CHECKING:
    from minillama.engine.grammar import Constraint


class Answer:
    """The tokens of one text, with its stop strings, its grammar and its limit.

    reason: of its end, None while it goes on. first_seconds, token_seconds: of the first token, and of the others.
    n_probs: likeliest tokens of each position in its pieces; with post_sampling_probs also the sampled token's
    log-probability after the sampler chain.
    """

    def __init__(
        self, tokenizer: Tokenizer, text: TextRequest, splitter: Splitter, n_probs: int, *, post_sampling_probs: bool
    ) -> None:
        request = text.request
        self.reason: Reason | None = None
        self.first_seconds = 0.0
        self.token_seconds: list[float] = []
        self._request, self._n_probs, self._has_chosen = request, n_probs, post_sampling_probs
        self._output = TextOutput(tokenizer, request.stop, request.ignore_eos, splitter)
        self._constraint = _constraint(text, tokenizer)
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[tuple[TokenProb, ...]] = []

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self._tokens)

    @property
    def has_grammar(self) -> bool:
        """Whether a grammar or a budget of thoughts decides which tokens may follow."""
        return self._constraint is not None

    @property
    def allowed(self) -> UInt32[np.ndarray, "W"] | None:
        """The tokens that may come next, as bits; None for all.

        Raises OptionError if there is none.
        """
        return None if self._constraint is None else self._constraint.allowed

    @property
    def shifts(self) -> bool:
        """Whether a full context drops its older half, so that the text goes on."""
        return self._request.context_shift and self._request.n != -2

    @property
    def text(self) -> str:
        """The text so far."""
        return self._output.text

    @property
    def reasoning_content(self) -> str:
        """The thoughts so far, of a chat."""
        return self._output.reasoning_content

    @property
    def stop_string(self) -> str:
        """The stop string that ended it; empty if none did."""
        return self._output.found or ""

    def add(
        self,
        token: int,
        logprob: float,
        seconds: float,
        report: ReportedTop | None,
        *,
        is_full: bool,
        is_late: bool = False,
    ) -> Piece:
        """Add a token; its piece.

        `reason` is set if it is the last one. is_full: whether there is no room to run it; is_late: whether the time is
        over. Raises OptionError where the grammar does not allow it.
        """
        if self._tokens:
            self.token_seconds.append(seconds)
        else:
            self.first_seconds = seconds
        self._tokens.append(token)
        self._logprobs.append(logprob)
        if self._constraint is not None:
            self._constraint.accept(token)
        likely = self._likely(report)
        shown = self._output.push(token)
        self.reason = self._why_stop(is_full=is_full, is_late=is_late)
        if self.reason is not None:
            shown += self._output.end(self.reason)
        return Piece(shown.text, token, logprob, seconds, shown.reasoning_content, *likely)

    def end(self, reason: Reason) -> None:
        """End it after the last token, if it has not ended."""
        if self.reason is None:
            self.reason = reason
            self._output.end(reason)

    def completion(self, prompt_tokens: int, seed: int, timings: Timings) -> Completion:
        """The result, after the end."""
        assert self.reason is not None
        return Completion(
            text=self.text,
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            reason=self.reason,
            prompt_tokens=prompt_tokens,
            seed=seed,
            timings=timings,
            reasoning_content=self.reasoning_content,
            top=tuple(self._top),
        )

    def _likely(self, report: ReportedTop | None) -> tuple[tuple[TokenProb, ...], float | None]:
        """The likeliest tokens, and the sampled one's log-probability after the chain, where they are wanted."""
        if not self._n_probs or report is None:
            return (), None
        self._top.append(report.likeliest(self._n_probs))
        return self._top[-1], report.chosen if self._has_chosen else None

    def _why_stop(self, *, is_full: bool, is_late: bool) -> Reason | None:
        if self._output.ended or (self._constraint is not None and self._constraint.is_over):
            return Reason.STOP
        if self._output.found is not None:
            return Reason.WORD
        if 0 < self._request.n <= len(self._tokens) or is_late:
            return Reason.LIMIT
        if is_full and not self.shifts:
            return Reason.LENGTH
        return None


def _constraint(text: TextRequest, tokenizer: Tokenizer) -> "Constraint | None":
    """Grammar and limit of thoughts; grammars are imported only for these."""
    if text.grammar is None and text.thinking is None:
        return None
    from minillama.engine.grammar import Constraint

    has_ends = bool(tokenizer.eog) and not text.request.ignore_eos
    return Constraint(text.grammar, text.thinking, tokenizer, has_ends=has_ends)
