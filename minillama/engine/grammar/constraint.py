"""The tokens that may come next in a text: its grammar and its budget."""

import numpy as np

from minillama.array_types import UInt32
from minillama.engine.grammar.grammar import GrammarState
from minillama.engine.grammar.thinking_budget import ThinkingBudget, ThinkingWatch
from minillama.engine.grammar.token_masks import pack_bits
from minillama.engine.grammar.triggers import LazyState
from minillama.errors import OptionError
from minillama.tokenizer import Tokenizer


class Constraint:
    """The state of a grammar and of a budget after some tokens.

    One of them may be None.

    has_ends: whether the text can be ended by a token. Without one it is over where nothing else may follow.
    In thoughts, a grammar that waits for a trigger does not read, unless its triggers count there too.
    """

    def __init__(
        self,
        state: GrammarState | LazyState | None,
        thinking: ThinkingBudget | None,
        tokenizer: Tokenizer,
        *,
        has_ends: bool,
    ) -> None:
        self._state, self._has_ends, self._size = state, has_ends, tokenizer.size
        self._thinking = None if thinking is None else ThinkingWatch(thinking, tokenizer)
        self._allowed: UInt32[np.ndarray, W] | None = None

    @property
    def allowed(self) -> UInt32[np.ndarray, "W"]:
        """The tokens that may follow, as bits; see `GrammarState.allowed`.

        Raises OptionError if there is none.
        """
        if self._allowed is None:
            self._allowed = self._find_allowed()
        if not self._allowed.any():
            raise OptionError("the grammar allows no token of this model here; give one that it can write")
        return self._allowed

    @property
    def is_over(self) -> bool:
        """Whether the text is complete and no token can follow."""
        state = self._state
        if self._has_ends or state is None or isinstance(state, LazyState) or not state.is_complete:
            return False
        return not (self.allowed & ~state.grammar.vocabulary.end_bits).any()

    def accept(self, token: int) -> None:
        """Go on with a sampled token.

        Raises OptionError if it does not fit.
        """
        self._allowed = None
        waits = self._waits
        if self._thinking is not None:
            self._thinking.accept(token)
        if self._state is not None and not waits:
            self._state = self._state.accept(token)

    @property
    def _waits(self) -> bool:
        """Whether the grammar does not read the next token."""
        if self._thinking is None or not isinstance(self._state, LazyState):
            return False
        return self._thinking.is_thinking and not self._state.lazy.triggers.in_thoughts

    def _find_allowed(self) -> UInt32[np.ndarray, "W"]:
        forced = None if self._thinking is None else self._thinking.forced
        if forced is not None:
            return pack_bits(np.arange(self._size) == forced)
        return pack_bits(np.ones(self._size, bool)) if self._state is None else self._state.allowed()
