"""The compilation of a sampler that is rare, while other texts go on."""

import threading
from collections.abc import Callable, Hashable

import numpy as np

from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import slot_programs
from minillama.engine.backends.programs.program import one_text
from minillama.sampling.mersenne_twister import seed_words
from minillama.sampling.sampled_token import mask_words


class RareCompilation:
    """Compiles the programs of a chain's structure in a thread of its own.

    then: called there at the end. No slot changes.
    """

    def __init__(self, backend: Backend, chain: Handle, slots: int, then: Callable[[], None]) -> None:
        caller = backend.apart()
        assert caller is not None
        self.structure: Hashable = chain.structure
        self.caller = caller
        self._backend, self._chain, self._slots, self._then = backend, chain, slots, then
        self._found: tuple[Handle, Handle] | None = None
        self._error: Exception | None = None
        # no daemon: a process that ends in the middle of a compilation would crash
        self._thread = threading.Thread(target=self._run, name="minillama-rare-sampler")
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._found is not None or self._error is not None

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without a result."""
        return self._error is not None

    def result(self) -> tuple[Handle, Handle]:
        """A chain and a state for every slot; waits. Raises what the compilation has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def _run(self) -> None:
        try:
            self._found = self._compile()
        except Exception as error:
            self._error = error
        self._then()

    def _compile(self) -> tuple[Handle, Handle]:
        vocab, chain, call = self._backend.config.vocab_size, self._chain, self.caller.call
        no_slot, ids = one_text(self._slots), np.zeros((1, chain.window), np.int32)
        allowed = np.full((1, mask_words(vocab)), 0xFFFFFFFF, np.uint32)
        chains, states = call(slot_programs.new_samplers, chain, self._slots)
        latest = self._backend.put(np.zeros((self._slots, 1), np.int32))
        logits = slot_programs.rows_of(
            self._backend.put(np.zeros((1, vocab), np.int32)).astype(np.float32), one_text(0)
        )
        for _ in range(2):  # the second time with what the first one has returned
            given = chain, seed_words(0)[None], ids, one_text(1), no_slot, one_text(0)[None]
            chains, states, latest = call(slot_programs.join_slot, chains, states, latest, *given)
            draft, states, latest = call(slot_programs.draw_slots, chains, states, latest, no_slot, logits, allowed)
            np.asarray(draft.tokens)
        return chains, states
