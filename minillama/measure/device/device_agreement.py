"""Agreement of a device with the processor: logits, and the tokens of a seeded text."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillama.array_types import Float32
from minillama.engine.llm import LLM
from minillama.engine.load import load
from minillama.measure.device.report_rows import Value

TYPES = ("Q4_0", "Q4_K_M", "Q8_0", "F16")
TOKENS = 32  # of a seeded text
IDS = tuple(range(3, 300, 7))


def precision(name: str) -> AbstractContextManager[Any]:
    """Precision of float32 products, `default` or `highest`, in programs that are compiled inside."""
    return nullcontext() if name == "default" else jax.default_matmul_precision(name)


def largest_difference(found: Float32[np.ndarray, "T V"], expected: Float32[np.ndarray, "T V"]) -> float:
    """The largest difference of two logits, in standard deviations of the expected ones."""
    return float(np.abs(found - expected).max() / expected.std())


def seeded_tokens(llm: LLM, ids: Sequence[int], count: int = TOKENS) -> tuple[int, ...]:
    """The tokens of a text with a fixed seed."""
    return tuple(llm.generate(list(ids), n=count, seed=7, temp=0.8, ignore_eos=True).tokens)


def agreement(path: Path, kind: str) -> Iterator[Value]:
    """Differences of the first device to the processor, which XLA should compute on as well.

    path: a small model. kind: its type, for the names.
    """
    ctx_size = len(IDS) + TOKENS + 1
    processor, device = load(path, n_gpu_layers=0, ctx_size=ctx_size), load(path, ctx_size=ctx_size)
    with precision("highest"):
        expected, text = processor.logits(IDS), seeded_tokens(processor, IDS)
    for name in ("default", "highest"):
        with precision(name):
            yield Value(f"{kind}, {name} precision", largest_difference(device.logits(IDS), expected), "std")
    with precision("highest"):
        found = seeded_tokens(device, IDS)
    equal = next((at for at, (a, b) in enumerate(zip(found, text, strict=True)) if a != b), len(text))
    yield Value(f"{kind}, highest precision: equal tokens", float(equal), f"of {TOKENS}")
