"""Graded items of lab 17: limits, two kernels, a correction, and Pallas."""

from minillama.lab.checks.kernel_items.lab17_kernels import dequantise_product, integer_product
from minillama.lab.checks.kernel_items.lab17_limits import correction, instructions_allowed
from minillama.lab.checks.kernel_items.lab17_pallas import pallas_kernel
from minillama.lab.grading.check import Score
from minillama.lab.grading.check import score as score_of

LAB = "17"
ITEMS = (instructions_allowed, dequantise_product, correction, integer_product, pallas_kernel)

__all__ = [
    "ITEMS",
    "LAB",
    "correction",
    "dequantise_product",
    "instructions_allowed",
    "integer_product",
    "pallas_kernel",
    "score",
]


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
