"""Drafts of prompt lookup that are right, or wrong on purpose."""

from collections.abc import Sequence

import numpy as np
import pytest

from minillama.engine.drafting import text_drafter
from minillama.engine.generation.prompt_lookup import PromptLookup


def use_oracle(
    monkeypatch: pytest.MonkeyPatch, text: Sequence[int], wrong: float = 0.0, sizes: tuple[int, int] = (0, 7)
) -> None:
    """Draft what follows in a known text, of random lengths, some with a wrong token somewhere."""
    rng = np.random.default_rng(0)

    class Oracle(PromptLookup):
        def draft(self, most: int) -> list[int]:
            here = len(self._tokens)
            assert self._tokens == list(text[:here]), "the index does not hold the text so far"
            guess = list(text[here : here + min(most, int(rng.integers(*sizes, endpoint=True)))])
            if guess and rng.random() < wrong:
                guess[rng.integers(len(guess))] = 7
            return guess

    monkeypatch.setattr(text_drafter, "PromptLookup", Oracle)
