"""Graded items of lab 11: flaws of benchmarks, and what makes one fair."""

from minillama.lab.checks.items.lab11_calls import corrected
from minillama.lab.checks.items.lab11_reports import FLAWS, flaw_list, flaws, unfair
from minillama.lab.checks.items.lab11_speed_up import speed_up
from minillama.lab.checks.items.lab11_timer import fair_time
from minillama.lab.grading.check import Score
from minillama.lab.grading.check import score as score_of

__all__ = ["FLAWS", "corrected", "fair_time", "flaw_list", "flaws", "score", "speed_up", "unfair"]

LAB = "11"
ITEMS = (flaws, fair_time, corrected, unfair, speed_up)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
