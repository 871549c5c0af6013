"""The loop: read the prompt, sample, stop. A stream is an iterator of pieces with a completion at its end."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

import jax
import numpy as np

from minillama.engine.backends.base import Kept
from minillama.engine.backends.programs import Choice
from minillama.engine.compile.compile_timer import Lap, compile_seconds
from minillama.engine.generate_options import Request
from minillama.engine.prompt_lookup import Lookup
from minillama.engine.result import Completion, Piece, Reason, State, Timings
from minillama.engine.session import Session, pass_size
from minillama.engine.stop_strings import StopWatch
from minillama.tokenizer import Tokenizer

Result = TypeVar("Result")
Sampled = tuple[int, float, float]  # a token, its log-probability, the seconds that it took

_compiled: set[object] = set()  # programs that ran before, to say "compiling" before the others do


class Stream:
    """Iterate over it for pieces; `completion` is there when it has ended or was closed. Also a context manager.

    `state` says what it is doing, for a display beside it. An interrupt (Ctrl-C) closes it and is raised again.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        chain: Kept,
        ids: tuple[int, ...],
        request: Request,
        seed: int,
        load: float,
    ) -> None:
        self.state = State.PROMPT
        self.read_tokens = 0  # of the prompt, to show progress
        self.prompt_tokens = len(ids)
        self.seed = seed  # the one in force, also where a random one was asked for
        self._session, self._tokenizer, self._chain, self._request = session, tokenizer, chain, request
        self._ids, self._load = ids, load
        self._ends = frozenset() if request.ignore_eos else tokenizer.eog
        self._watch = StopWatch(request.stop)
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._token_seconds: list[float] = []
        self._prompt_seconds = self._first_seconds = 0.0
        self._evaluated = self._drafted = self._accepted = 0
        self._kind = hash((session.config, jax.tree.structure(chain)))
        self._reason: Reason | None = None
        self._started, self._compile_started = time.perf_counter(), compile_seconds()
        self._total = self._compiling = 0.0
        self._pieces = self._run()

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Piece:
        try:
            return next(self._pieces)
        except BaseException as problem:
            if not isinstance(problem, StopIteration):
                self._finish(Reason.INTERRUPTED)
            raise

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop generating; what was written stays in `completion`, and the session can go on."""
        self._pieces.close()
        self._finish(Reason.INTERRUPTED)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def completion(self) -> Completion:
        """The result; raises ValueError while the stream is still running."""
        if self._reason is None:
            raise ValueError("the stream has not ended; iterate over it to its end or close it")
        return Completion(
            text=self.text,
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            reason=self._reason,
            prompt_tokens=self.prompt_tokens,
            seed=self.seed,
            timings=Timings(
                load=self._load,
                compile=self._compiling,
                prompt=self._prompt_seconds,
                first_token=self._first_seconds,
                total=self._total,
                prompt_tokens=self._evaluated,
                generated_tokens=len(self._tokens),
                token_seconds=tuple(self._token_seconds),
                drafted_tokens=self._drafted,
                accepted_tokens=self._accepted,
            ),
        )

    def _finish(self, reason: Reason) -> None:
        if self._reason is None:
            self._reason, self.state = reason, State.DONE
            self._text.append(self._watch.flush())
            self._total = time.perf_counter() - self._started
            self._compiling = compile_seconds() - self._compile_started

    def _run(self) -> Iterator[Piece]:
        """Pieces until something ends the text."""
        if self._request.n == 0:
            self._finish(Reason.LIMIT)
            return
        decoder = self._tokenizer.decoder()
        for token, logprob, seconds in self._sampled():
            if self._tokens:
                self._token_seconds.append(seconds)
            else:
                self._first_seconds = seconds = self._prompt_seconds + seconds
            self._tokens.append(token)
            self._logprobs.append(logprob)
            ended = token in self._ends
            text = self._watch.push(decoder.flush() if ended else decoder.push(token))
            reason = self._why_stop(ended)
            if reason is Reason.LIMIT or reason is Reason.LENGTH:
                text += self._watch.push(decoder.flush()) + self._watch.flush()
            elif reason is Reason.STOP:
                text += self._watch.flush()
            if text:
                self._text.append(text)
            if reason is not None:
                self._finish(reason)
            yield Piece(text, token, logprob, seconds)
            if reason is not None:
                return

    def _sampled(self) -> Iterator[Sampled]:
        """Token after token. To ask for another one is to say that the text goes on with the last one.

        Only then does the session hold it, whatever was run beyond it.
        """
        lap = Lap()
        logits = self._read_prompt(self._ids)
        self._prompt_seconds = lap.seconds()
        chain = self._chain
        arguments = chain, self.seed, *_recent(chain.window, self._ids), logits
        choice, state = self._compiling_if_new(self._kind, self._session.begin, *arguments)
        return (self._looked_up if self._request.lookup else self._one_by_one)(lap, state, choice)

    def _one_by_one(self, lap: Lap, state: Kept, choice: Choice) -> Iterator[Sampled]:
        """Plain decoding. Where nothing is to be compiled the next step is under way while the text is made."""
        session = self._session
        while True:
            ahead = None
            if session.room and not self._is_last() and self._program(1) in _compiled:
                ahead, state = self._step(state, choice.token)
            token, logprob = int(choice.token), float(choice.logprob)
            yield token, logprob, lap.seconds()
            if ahead is None:
                self._make_room()
                ahead, state = self._step(state, choice.token)
            session.hold(token)
            choice = ahead

    def _looked_up(self, lap: Lap, state: Kept, choice: Choice) -> Iterator[Sampled]:
        """Decoding with drafts from the context; a plain step where it offers none."""
        session = self._session
        index = Lookup(self._request.ngram_max, self._request.draft_max)
        index.extend(self._ids)
        token, logprob, seconds = int(choice.token), float(choice.logprob), lap.seconds()
        while True:
            yield token, logprob, seconds
            self._make_room()
            index.extend([token])
            if draft := index.draft(self._draftable()):
                program = self._program(pass_size(1 + len(draft)))
                arguments = self._chain, state, token, draft
                tokens, logprobs, state = self._compiling_if_new(program, session.verify, *arguments)
                self._drafted += len(draft)
                index.learn(len(tokens) - 1)
            else:
                choice, state = self._step(state, token)
                tokens, logprobs = [int(choice.token)], [float(choice.logprob)]
            seconds = lap.seconds() / len(tokens)
            session.hold(token)
            for token, logprob in zip(tokens[:-1], logprobs[:-1], strict=True):
                self._accepted += 1
                yield token, logprob, seconds
                session.hold(token)
                index.extend([token])
            token, logprob = tokens[-1], logprobs[-1]

    def _draftable(self) -> int:
        """Tokens that a draft may have: the pass must fit in the context, and its tokens within the limit."""
        fitting = (1 << (self._session.room.bit_length() - 1)) - 1
        wanted = self._request.n - len(self._tokens) - 1
        return min(fitting, wanted) if self._request.n > 0 else fitting

    def _is_last(self) -> bool:
        """Whether the token that comes next is the last one asked for."""
        return 0 < self._request.n <= len(self._tokens) + 1

    def _step(self, state: Kept, token: Kept | int) -> tuple[Choice, Kept]:
        return self._compiling_if_new(self._program(1), self._session.step, self._chain, state, token)

    def _program(self, size: int) -> object:
        return self._kind, *self._session.program(size)

    def _read_prompt(self, ids: Sequence[int]) -> Kept:
        """Read what the session does not hold yet; logits of the last token."""
        reused = self._session.reuse(ids)
        self._evaluated += len(ids) - reused
        self.read_tokens = reused
        self.state = State.PROMPT
        logits = None
        for chunk_logits in self._session.read(ids[reused:]):
            logits = chunk_logits
            self.read_tokens = len(self._session.tokens)
        return jax.block_until_ready(logits)

    def _why_stop(self, ended: bool) -> Reason | None:
        if ended:
            return Reason.STOP
        if self._watch.found is not None:
            return Reason.WORD
        if 0 < self._request.n <= len(self._tokens):
            return Reason.LIMIT
        if self._session.room == 0 and (not self._request.context_shift or self._request.n == -2):
            return Reason.LENGTH
        return None

    def _make_room(self) -> None:
        """Where the context is full, do as llama.cpp does: keep the first tokens, drop half of the others, and go on.

        The tokens that stay are read again, so the text continues as if the dropped ones had never been there.
        """
        if self._session.room:
            return
        tokens, keep = self._session.tokens, self._kept()
        dropped = max(1, (len(tokens) - keep) // 2)
        self._read_prompt(tokens[:keep] + tokens[keep + dropped :])
        self.state = State.GENERATING

    def _kept(self) -> int:
        """Tokens at the start that a shift spares: BOS on top of what was asked for, at most the prompt."""
        wanted = self._request.keep
        if wanted < 0:
            wanted = len(self._ids)
        elif wanted:
            wanted += self._tokenizer.add_bos
        return min(wanted, len(self._ids), self._session.ctx_size // 2)

    def _compiling_if_new(self, program: object, call: Callable[..., Result], *arguments: object) -> Result:
        """Run one call, in the state `COMPILING` if this program has not run before."""
        self.state = State.GENERATING if program in _compiled else State.COMPILING
        result = call(*arguments)
        _compiled.add(program)
        self.state = State.GENERATING
        return result


def _recent(window: int, ids: Sequence[int]) -> tuple[np.ndarray, int]:
    """The prompt's last tokens, as many as the penalties' window holds, and how many there are."""
    recent = np.zeros(window, np.int32)
    tail = ids[-window:]
    recent[: len(tail)] = tail
    return recent, len(tail)
