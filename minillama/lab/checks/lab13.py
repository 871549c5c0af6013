"""Graded items of lab 13: a scheduler's decisions, stop strings, latencies."""

from minillama.lab.checks.items.lab13_scheduler import admit, next_chunk
from minillama.lab.checks.items.lab13_streams import latencies, raw_events, stop_string
from minillama.lab.grading.check import Score
from minillama.lab.grading.check import score as score_of

LAB = "13"
ITEMS = (admit, next_chunk, stop_string, latencies)

__all__ = ["ITEMS", "LAB", "admit", "latencies", "next_chunk", "raw_events", "score", "stop_string"]


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
