"""The law of speculative decoding: tokens of a pass, its price, and the gain.

Leviathan, Kalman and Matias, Fast inference from transformers via speculative decoding, 2023.
"""

from collections.abc import Callable

MOST_ROWS = 32  # of a pass over guesses in the engine
Seconds = Callable[[int], float]  # of a pass by its rows


def expected_tokens(acceptance: float, guesses: int) -> float:
    """Mean number of tokens that a pass over k guesses writes.

    1 + a + a^2 + ... + a^k, where a is the acceptance.
    """
    return sum(acceptance**place for place in range(guesses + 1))


def speedup(acceptance: float, guesses: int, draft: float, cost: float) -> float:
    """Tokens a second with guesses over those without.

    draft: cost of a guessed token, cost: of a pass over the guesses; both in plain passes of one token.
    """
    return expected_tokens(acceptance, guesses) / (cost + guesses * draft)


def batch_speedup(acceptance: float, guesses: int, batch: int, draft: float, seconds: Seconds) -> float:
    """The same for `batch` texts in each pass.

    draft: a guessed token for all texts, in the unit of `seconds`.
    """
    with_guesses = seconds(batch * (guesses + 1)) + guesses * draft
    return expected_tokens(acceptance, guesses) * seconds(batch) / with_guesses


def best_guesses(acceptance: float, batch: int, draft: float, seconds: Seconds, most_rows: int = MOST_ROWS) -> int:
    """Guesses of each text that give most tokens a second.

    0 where none pays, the fewest of equal ones.
    """
    lengths = range(max(1, most_rows // batch))
    return max(lengths, key=lambda length: batch_speedup(acceptance, length, batch, draft, seconds))
