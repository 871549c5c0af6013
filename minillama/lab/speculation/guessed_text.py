"""The guesses of prompt lookup on a text that is known, without a model."""

from collections.abc import Callable, Sequence

Lookup = Callable[[Sequence[int], int, int], Sequence[int]]


def follow(lookup: Lookup, tokens: Sequence[int], n: int, k: int) -> tuple[float, float]:
    """(acceptance, tokens of a pass) if a model wrote exactly these tokens after the first one.

    acceptance: share of the compared guesses that are right; 0 without any guess.
    """
    place, passes, tested, accepted = 1, 0, 0, 0
    while place < len(tokens):
        guess = list(lookup(list(tokens[:place]), n, k))[: len(tokens) - place - 1]
        right = 0
        while right < len(guess) and guess[right] == tokens[place + right]:
            right += 1
        tested += min(right + 1, len(guess))
        accepted += right
        place, passes = place + right + 1, passes + 1
    return accepted / tested if tested else 0.0, (len(tokens) - 1) / max(passes, 1)
