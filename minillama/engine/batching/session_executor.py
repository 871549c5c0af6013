"""A simple executor: one session for each slot."""

from collections.abc import Sequence
from typing import Any

import jax

from minillama.engine.batching.executor import SampledToken
from minillama.engine.session import Session
from minillama.engine.stream import sampled_numbers


class SessionExecutor:
    """Slots that are sessions of their own."""

    rewinds = True

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.capacity = sessions[0].ctx_size
        self._sessions = sessions
        self._samplers: list[Any] = [None] * len(sessions)  # chain, state and latest token of each
        self._ran: list[int | None] = [None] * len(sessions)  # a token that the session ran, not committed yet

    def prefill(self, slot: int, start: int, ids: Sequence[int]) -> Any:
        session = self._commit(slot)
        if start < len(session.tokens):
            session.truncate(start)
        logits = None
        for chunk in session.prefill(list(ids)):
            logits = chunk
        return logits

    def join(self, slot: int, chain: Any, seed: int, recent_ids: Sequence[int], logits: Any) -> list[SampledToken]:
        sampled, state = self._sessions[slot].start(chain, seed, logits)
        return [self._store(slot, chain, state, sampled)]

    def step(self, slots: Sequence[int], positions: Sequence[int]) -> list[SampledToken]:
        found = []
        for slot, position in zip(slots, positions, strict=True):
            session = self._commit(slot)
            assert len(session.tokens) == position
            chain, state, token = self._samplers[slot]
            sampled, state = session.generate(chain, state, token)
            self._ran[slot] = token
            found.append(self._store(slot, chain, state, sampled))
        return found

    def read(self, draw: list[SampledToken]) -> list[SampledToken]:
        return draw

    def wait(self, logits: Any) -> None:
        jax.block_until_ready(logits)

    def copy(self, source: int, target: int, count: int) -> None:
        tokens = self._commit(source).tokens[:count]
        session = self._commit(target)
        reused = session.reuse([*tokens, -1])
        for _ in session.prefill(tokens[reused:]):
            pass

    def _commit(self, slot: int) -> Session:
        """The session of a slot, with the token that it ran."""
        session, token = self._sessions[slot], self._ran[slot]
        if token is not None:
            session.commit(token)
            self._ran[slot] = None
        return session

    def _store(self, slot: int, chain: Any, state: Any, sampled: Any) -> SampledToken:
        tokens, logprobs = sampled_numbers(sampled)
        self._samplers[slot] = chain, state, tokens[0]
        return SampledToken(tokens[0], logprobs[0])
