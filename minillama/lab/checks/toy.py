"""A model without noise for the checks: it answers at once, and counts what it is asked to run."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

VOCABULARY = 101


class ToyModel:
    """A model without noise: its logits depend on every token so far, and it counts what it is asked to run.

    A cache is taken over by the pass that gets it, as the engine's is.
    """

    def __init__(self) -> None:
        self.calls = self.tokens = 0
        self._used: set[int] = set()
        self._caches: list[ToyCache] = []  # kept, so that no two have one id

    def empty(self) -> "ToyCache":
        return self._new(())

    def __call__(self, tokens: Sequence[int], cache: "ToyCache") -> tuple[np.ndarray, "ToyCache"]:
        if not isinstance(cache, ToyCache):
            raise TypeError("the second argument of model is a cache: `model.empty()`, or the one a pass gave back")
        if id(cache) in self._used:
            raise RuntimeError(
                "Array has been deleted: a pass takes over the cache it gets; go on with the one it returns"
            )
        ids = [int(token) for token in np.ravel(np.asarray(tokens))]
        if not ids:
            raise ValueError("a pass needs at least one token")
        self._used.add(id(cache))
        self.calls += 1
        self.tokens += len(ids)
        held = (*cache.tokens, *ids)
        return toy_logits(held), self._new(held)

    def _new(self, tokens: tuple[int, ...]) -> "ToyCache":
        self._caches.append(ToyCache(tokens))
        return self._caches[-1]


class ToyCache:
    """What a toy remembers."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens = tokens

    def __deepcopy__(self, memo: object) -> "ToyCache":
        return self


def toy_logits(held: tuple[int, ...]) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(repr(held).encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=VOCABULARY)


def decode_naively(prompt: Sequence[int], n: int) -> list[int]:
    held = list(prompt)
    for _ in range(n):
        held.append(int(np.argmax(toy_logits(tuple(held)))))
    return held[len(prompt) :]


def decode_with(prompt: Sequence[int], n: int, feed: Callable[[int, int], list[int]]) -> list[int]:
    """Tokens of a loop that runs `feed(token, the one before)` where it should run the token."""
    held, out, before = list(prompt), [], prompt[-1]
    for _ in range(n):
        token = int(np.argmax(toy_logits(tuple(held))))
        out.append(token)
        held += feed(token, before)
        before = token
    return out
