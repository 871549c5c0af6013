"""A deterministic toy model that counts its calls."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import translate

VOCABULARY = 101


class ToyModel:
    """A deterministic model whose logits depend on all tokens so far.

    It counts calls and tokens. A pass takes over its input cache, as the engine's does.
    """

    def __init__(self) -> None:
        self.calls = self.tokens = 0
        self._used: set[int] = set()
        self._caches: list[ToyCache] = []  # kept alive, so that no two have the same id

    def empty(self) -> "ToyCache":
        return self._new(())

    def __call__(self, tokens: Sequence[int], cache: "ToyCache") -> tuple[np.ndarray, "ToyCache"]:
        if not isinstance(cache, ToyCache):
            raise TypeError(
                translate("the second argument of model is a cache: `model.empty()`, or the one that a pass returned")
            )
        if id(cache) in self._used:
            raise RuntimeError(
                translate("Array has been deleted: a pass takes over the cache it gets; go on with the one it returns")
            )
        ids = [int(token) for token in np.ravel(np.asarray(tokens))]
        if not ids:
            raise ValueError(translate("a pass needs at least one token"))
        self._used.add(id(cache))
        self.calls += 1
        self.tokens += len(ids)
        held = (*cache.tokens, *ids)
        return toy_logits(held), self._new(held)

    def _new(self, tokens: tuple[int, ...]) -> "ToyCache":
        self._caches.append(ToyCache(tokens))
        return self._caches[-1]


class ToyCache:
    """Cache of a `ToyModel`."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens = tokens

    def __deepcopy__(self, memo: object) -> "ToyCache":
        return self


def toy_logits(held: tuple[int, ...]) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(repr(held).encode()).digest()[:8], "little")
    return hidden_random(seed).normal(size=VOCABULARY)


def decode_naively(prompt: Sequence[int], n: int) -> list[int]:
    held = list(prompt)
    for _ in range(n):
        held.append(int(np.argmax(toy_logits(tuple(held)))))
    return held[len(prompt) :]


def decode_with(prompt: Sequence[int], n: int, feed: Callable[[int, int], list[int]]) -> list[int]:
    """Tokens of a decode loop that runs `feed(token, previous token)` in place of the token."""
    held, out, before = list(prompt), [], prompt[-1]
    for _ in range(n):
        token = int(np.argmax(toy_logits(tuple(held))))
        out.append(token)
        held += feed(token, before)
        before = token
    return out
