"""The grammar of one text while it is generated."""

import numpy as np
from jaxtyping import UInt32

from minillama.engine.grammar.grammar import GrammarState
from minillama.engine.grammar.triggers import LazyState
from minillama.errors import OptionError


class Constraint:
    """The state of a grammar after the tokens of one text.

    has_ends: whether the text can be ended by a token. Without one it is over where nothing else may follow.
    """

    def __init__(self, state: GrammarState | LazyState, *, has_ends: bool) -> None:
        self._state, self._has_ends = state, has_ends
        self._allowed: UInt32[np.ndarray, W] | None = None

    @property
    def allowed(self) -> UInt32[np.ndarray, "W"]:
        """The tokens that may follow, as bits; see `GrammarState.allowed`.

        Raises OptionError if there is none.
        """
        if self._allowed is None:
            self._allowed = self._state.allowed()
        if not self._allowed.any():
            raise OptionError("the grammar allows no token of this model here; give one that it can write")
        return self._allowed

    @property
    def is_over(self) -> bool:
        """Whether the text is complete and no token can follow."""
        if self._has_ends or not self._state.is_complete or isinstance(self._state, LazyState):
            return False
        return not (self.allowed & ~self._state.grammar.vocabulary.end_bits).any()

    def accept(self, token: int) -> None:
        """Go on with a sampled token.

        Raises OptionError if it does not fit.
        """
        self._state, self._allowed = self._state.accept(token), None
