"""The loop: read the prompt, sample, stop. A stream is an iterator of pieces with a completion at its end."""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType

import jax
import jax.numpy as jnp
import numpy as np

from minillama.engine import steps
from minillama.engine.compile_clock import compile_seconds
from minillama.engine.request import Request
from minillama.engine.result import Completion, Piece, Reason, State, Timings
from minillama.engine.session import Session
from minillama.engine.stops import StopWatch
from minillama.sampling import Chain, SamplerState
from minillama.tokenizer import Tokenizer

_compiled: set[object] = set()  # programs that ran before, to say "compiling" before the others do


class Stream:
    """Iterate over it for pieces; `completion` is there when it has ended or was closed. Also a context manager.

    `state` says what it is doing, for a display beside it. An interrupt (Ctrl-C) closes it and is raised again.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        chain: Chain,
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
        self._evaluated = 0
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
        session = self._session
        if self._request.n == 0:
            self._finish(Reason.LIMIT)
            return
        lap = _Lap()
        state = self._chain.init(self.seed)
        logits = self._read_prompt(self._ids)
        state = _accept(self._chain, state, self._ids)
        self._prompt_seconds = lap.seconds()
        choice, state = self._compiling_if_new((self._structure(), "choose"), steps.choose, self._chain, state, logits)
        decoder = self._tokenizer.decoder()
        token, logprob = int(choice.token), float(choice.logprob)
        self._first_seconds = seconds = self._prompt_seconds + lap.seconds()
        while True:
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
            if session.room == 0:
                self._shift()
            choice, state = self._compiling_if_new(
                (self._structure(), session.program()), session.step, self._chain, state, choice.token
            )
            token, logprob = int(choice.token), float(choice.logprob)
            seconds = lap.seconds()
            self._token_seconds.append(seconds)

    def _read_prompt(self, ids: Sequence[int]) -> jax.Array:
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

    def _shift(self) -> None:
        """Make room as llama.cpp does: keep the first tokens, drop half of the others, and go on.

        The tokens that stay are read again, so the text continues as if the dropped ones had never been there.
        """
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

    def _structure(self) -> object:
        return jax.tree.structure(self._chain)

    def _compiling_if_new(self, program: object, call, *arguments) -> tuple[steps.Choice, SamplerState]:
        """Run one call, in the state `COMPILING` if this program has not run before."""
        self.state = State.GENERATING if program in _compiled else State.COMPILING
        result = call(*arguments)
        _compiled.add(program)
        self.state = State.GENERATING
        return result


class _Lap:
    """Seconds since the last call, without compilation."""

    def __init__(self) -> None:
        self._at, self._compiled = time.perf_counter(), compile_seconds()

    def seconds(self) -> float:
        now, compiled = time.perf_counter(), compile_seconds()
        passed = now - self._at - (compiled - self._compiled)
        self._at, self._compiled = now, compiled
        return max(passed, 0.0)


def _accept(chain: Chain, state: SamplerState, ids: Sequence[int]) -> SamplerState:
    """Let the penalties see the prompt's last tokens, as many as their window holds."""
    recent = np.zeros(chain.window, np.int32)
    tail = ids[-chain.window :]
    recent[: len(tail)] = tail
    return _accept_many(chain, state, jnp.asarray(recent), jnp.int32(len(tail)))


@jax.jit
def _accept_many(chain: Chain, state: SamplerState, ids: jax.Array, count: jax.Array) -> SamplerState:
    return chain.accept_many(state, ids, count)
