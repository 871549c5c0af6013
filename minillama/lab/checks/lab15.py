"""Graded items of lab 15: a guesser, the law of its gain, a sampler."""

from minillama.lab.checks.speculation.lab15_law import best_k, expected_tokens, speedup
from minillama.lab.checks.speculation.lab15_lookup import lookup
from minillama.lab.checks.speculation.lab15_verify import verify
from minillama.lab.grading.check import Score
from minillama.lab.grading.check import score as score_of

LAB = "15"
ITEMS = (lookup, expected_tokens, speedup, verify, best_k)

__all__ = ["ITEMS", "LAB", "best_k", "expected_tokens", "lookup", "score", "speedup", "verify"]


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
