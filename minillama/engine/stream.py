"""A stream: sample token after token, turn tokens into text, stop.

Read `Stream._sample` first: it is the loop.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np

from minillama.array_types import UInt32
from minillama.engine.backends.base import Handle
from minillama.engine.backends.finite import non_finite
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.compile.compile_timer import Stopwatch, compile_seconds
from minillama.engine.drafting.text_drafter import text_drafter
from minillama.engine.generation.answer import Answer
from minillama.engine.generation.context_shift import kept_tokens, shift
from minillama.engine.generation.piece_stream import PieceStream
from minillama.engine.generation.text_request import TextRequest
from minillama.engine.generation.top_probs import ReportedTop
from minillama.engine.result import Completion, Piece, Reason, State, Timings
from minillama.engine.session import Session, pass_size
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.chat.answer_parts import Splitter

SampledToken = tuple[int, float, float, ReportedTop]  # a token, its log-probability, its seconds, likely others

_compiled: set[object] = set()  # keys of programs that have run, to show "compiling" before the others do


class Stream(PieceStream):
    """An iterator of pieces and a context manager; `completion` is there when it has ended.

    `state` is the current activity, for a display. An interrupt (Ctrl-C) closes the stream and is raised again.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        chain: Handle,
        text: TextRequest,
        seed: int,
        load_seconds: float,
        splitter: Splitter,
    ) -> None:
        ids, request = text.ids, text.request
        self.state = State.PROMPT
        self.read_tokens = 0  # of the prompt, to show progress
        self.prompt_tokens = len(ids)
        self.seed = seed  # the actual one, also where a random one was wanted
        self._session, self._tokenizer, self._chain, self._request = session, tokenizer, chain, request
        self._ids, self._load_seconds = ids, load_seconds
        sampling = text.sampling
        self._answer = Answer(
            tokenizer, text, splitter, sampling.n_probs, post_sampling_probs=sampling.post_sampling_probs
        )
        self._drafter = None if self._answer.has_grammar else text_drafter(session, request)
        self._prompt_seconds = 0.0
        self._evaluated = self._drafted = self._accepted = 0
        self._kind = hash((session.config, jax.tree.structure(chain), self._answer.has_grammar))
        self._started, self._compile_started = time.perf_counter(), compile_seconds()
        self._total = self._compiling = 0.0
        self._pieces = self._write()

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop generating; `completion` keeps what was written, and the session can go on."""
        self._pieces.close()
        self._finish(Reason.INTERRUPTED)

    @property
    def text(self) -> str:
        """The text so far."""
        return self._answer.text

    @property
    def reasoning_content(self) -> str:
        """The thoughts so far, of a chat."""
        return self._answer.reasoning_content

    @property
    def completion(self) -> Completion:
        """The result; raises ValueError while the stream is still running."""
        if self.state is not State.DONE:
            raise ValueError("the stream has not ended; iterate over it to its end or close it")
        timings = Timings(
            load=self._load_seconds,
            compile=self._compiling,
            prompt=self._prompt_seconds,
            first_token=self._answer.first_seconds,
            total=self._total,
            prompt_tokens=self._evaluated,
            generated_tokens=len(self._answer),
            token_seconds=tuple(self._answer.token_seconds),
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
        )
        return self._answer.completion(self.prompt_tokens, self.seed, timings)

    def _sample(self) -> Iterator[SampledToken]:
        """Yield sampled tokens. Requesting the next token commits the previous one to the session."""
        stopwatch = Stopwatch()
        sampled, state = self._run_prompt()
        self._prompt_seconds = stopwatch.seconds()
        draft: Sequence[int] = ()
        if self._drafter is not None:
            self._drafter.extend(self._ids)
        while True:
            following = None
            if self._may_run_ahead():  # the device runs the next step while this token becomes text
                following = self._generate(state, sampled.tokens)
            tokens, logprobs = _numbers(sampled)
            seconds = stopwatch.seconds() / len(tokens)
            for place, token in enumerate(tokens[:-1]):  # accepted tokens of a draft
                self._accepted += 1
                yield token, logprobs[place], seconds, ReportedTop(sampled.top, 0, place)
                self._session.commit(token)
            yield tokens[-1], logprobs[-1], seconds, ReportedTop(sampled.top, 0, len(tokens) - 1)
            if following is None:
                self._make_room()
                draft = self._propose(draft, tokens)
                following = self._generate(state, tokens[-1] if self._drafter else sampled.tokens, draft)
            self._session.commit(tokens[-1])
            sampled, state = following

    def _run_prompt(self) -> tuple[VerifiedDraft, Handle]:
        """Read the prompt and sample the first token.

        The last token of the prompt is a step, as in a batch: a text has the same bits in both.
        """
        self._read(self._ids, len(self._ids) - 1)
        with self._compiling_if_new(self._kind):
            state = self._session.start(self._chain, self.seed, self._ids)
        sampled, state = self._generate(state, self._ids[-1])
        self._session.commit(self._ids[-1])
        self.read_tokens = self.prompt_tokens
        jax.block_until_ready(sampled.tokens)
        return sampled, state

    def _generate(self, state: Handle, token: Handle | int, draft: Sequence[int] = ()) -> tuple[VerifiedDraft, Handle]:
        """Run a token, with a draft of what may follow it, and sample."""
        self._drafted += len(draft)
        with self._compiling_if_new(self._program(pass_size(1 + len(draft)))):
            return self._session.generate(self._chain, state, token, draft, self._mask)

    @property
    def _mask(self) -> UInt32[np.ndarray, "1 W"] | None:
        """The tokens that the grammar allows next, as bits; None for all."""
        allowed = self._answer.allowed
        return None if allowed is None else allowed[None]

    def _read(self, ids: Sequence[int], count: int) -> None:
        """Run the first `count` tokens, without those that the session holds."""
        reused = self._session.reuse(ids)
        self._evaluated += len(ids) - reused
        self.read_tokens = reused
        self.state = State.PROMPT
        last = None
        for chunk in self._session.prefill(ids[reused:count], with_logits=False):
            last = chunk
            self.read_tokens = len(self._session.tokens)
        jax.block_until_ready(last)

    def _may_run_ahead(self) -> bool:
        """Whether the next step is certain and compiled, so that nothing waits for it."""
        is_last = 0 < self._request.n <= len(self._answer) + 1
        has_room = self._session.room > 1
        is_free = self._drafter is None and not self._answer.has_grammar
        return is_free and has_room and not is_last and self._program(1) in _compiled

    def _propose(self, draft: Sequence[int], tokens: Sequence[int]) -> Sequence[int]:
        """A draft of what may follow: nothing without a drafter. The last draft gave `tokens`."""
        if self._drafter is None:
            return ()
        if draft:
            self._drafter.learn(len(tokens) - 1)
        self._drafter.extend(tokens)
        room = self._session.room - 1  # the last token of a full context is not run
        fitting = (1 << (room.bit_length() - 1)) - 1
        wanted = self._request.n - len(self._answer) - 1
        return self._drafter.draft(min(fitting, wanted) if self._request.n > 0 else fitting)

    def _make_room(self) -> None:
        """Shift a full context, and run the tokens that stay."""
        if self._session.room <= 1:
            keep = kept_tokens(
                self._request.keep, len(self._ids), self._session.ctx_size, add_bos=self._tokenizer.add_bos
            )
            rest = shift(self._session.tokens, keep)
            self._read(rest, len(rest))
            self.state = State.GENERATING

    def _write(self) -> Iterator[Piece]:
        """Pieces of text until something ends it."""
        try:
            if self._request.n == 0:
                self._finish(Reason.LIMIT)
                return
            for token, logprob, seconds, report in self._sample():
                seconds += 0 if len(self._answer) else self._prompt_seconds
                piece = self._answer.add(token, logprob, seconds, report, is_full=self._session.room <= 1)
                if self._answer.reason is not None:
                    self._finish(self._answer.reason)
                yield piece
                if self._answer.reason is not None:
                    return
        except BaseException:
            self._finish(Reason.INTERRUPTED)
            raise

    def _finish(self, reason: Reason) -> None:
        if self.state is not State.DONE:
            self.state = State.DONE
            self._answer.end(reason)
            self._total = time.perf_counter() - self._started
            self._compiling = compile_seconds() - self._compile_started

    def _program(self, size: int) -> object:
        return self._kind, *self._session.program(size)

    @contextmanager
    def _compiling_if_new(self, program: object) -> Iterator[None]:
        """Set the state to `COMPILING` for a block whose program has not run before."""
        self.state = State.GENERATING if program in _compiled else State.COMPILING
        yield
        _compiled.add(program)
        self.state = State.GENERATING


def _numbers(sampled: VerifiedDraft) -> tuple[list[int], list[float]]:
    """The tokens and log-probabilities of the one text of a pass.

    Raises NonFiniteError where a logit is NaN or infinite: the log-probability of the token then is not finite.
    """
    count = 1 if sampled.count is None else int(np.asarray(sampled.count)[0])
    logprobs = np.asarray(sampled.logprobs)[0, :count].tolist()
    if not all(map(math.isfinite, logprobs)):
        raise non_finite()
    return np.asarray(sampled.tokens)[0, :count].tolist(), logprobs
