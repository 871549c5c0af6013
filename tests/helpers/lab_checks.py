"""The labs' own solutions, and a test that every hint of a check can appear."""

import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import jupytext
import numpy as np
from jax.sharding import PartitionSpec

from minillama.kernels.cpu.simd import F32, I32, dot_narrow, fma
from minillama.lab.grading.check import Item, comparisons
from minillama.lab.serving.batch_simulator import common_prefix
from minillama.model.layer_kinds import DeltaNet, LatentAttention
from minillama.model.state_sizes import window_capacity

SOURCES = Path(__file__).resolve().parents[2] / "labs" / "src"


def solutions(lab: str) -> dict[str, Callable[..., object]]:
    """The functions of a lab's solution cells, by name."""
    (source,) = SOURCES.glob(f"{lab}_*.py")
    names: dict[str, object] = {
        "np": np, "jnp": jnp, "jax": jax, "math": math, "struct": struct, "time": time, "median": median,
        "P": PartitionSpec, "DeltaNet": DeltaNet, "LatentAttention": LatentAttention,
        "window_capacity": window_capacity,
        "common_prefix": common_prefix, "F32": F32, "I32": I32, "dot_narrow": dot_narrow, "fma": fma,
    }  # fmt: skip
    for cell in jupytext.read(source, fmt="py:percent").cells:
        if "solution" in cell.metadata.get("tags", ()) and "def " in cell.source:
            # Annotations may name types that only the notebook imports.
            exec("from __future__ import annotations\n" + cell.source, names)
    return {name: value for name, value in names.items() if callable(value)}


def assert_hints_appear(item: Item, right: Callable[..., object]) -> int:
    """At the first input where a mistake differs from the right answer, its own hint must be the first that matches.

    Two mistakes with equal answers on all inputs fail, because the hint of the second never appears. Returns the number
    of mistakes.
    """
    groups: dict[tuple[str, ...], list] = {}
    for comparison in comparisons(item, right):
        groups.setdefault(tuple(mistake.hint for mistake in comparison.mistakes), []).append(comparison)
    for hints, group in groups.items():
        for index, hint in enumerate(hints):
            with np.errstate(all="ignore"):
                outcomes = [(each, each.outcome(each.mistakes[index].wrong)) for each in group]
                shown = [each.hint(outcome) for each, outcome in outcomes if not each.accepts(outcome)]
            assert shown, f"lab {item.lab}, {item.name}: no input shows the mistake {hint!r}"
            assert shown[0] == hint, f"lab {item.lab}, {item.name}: {hint!r} is hidden by {shown[0]!r}"
    return sum(map(len, groups))
