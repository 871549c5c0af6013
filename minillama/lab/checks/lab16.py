"""Graded items of lab 16: states of layers, and what is computed from them."""

from minillama.lab.checks.layer_items.lab16_bytes import read_bytes, window_mask
from minillama.lab.checks.layer_items.lab16_delta import delta_rule
from minillama.lab.checks.layer_items.lab16_heads import absorb, rotated
from minillama.lab.grading.check import Score
from minillama.lab.grading.check import score as score_of

__all__ = ["absorb", "delta_rule", "read_bytes", "rotated", "score", "window_mask"]

LAB = "16"
ITEMS = (read_bytes, window_mask, delta_rule, absorb, rotated)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
