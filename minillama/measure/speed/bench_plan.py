"""Benchmark setups and tests: all combinations of lists of values, in llama-bench's order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from minillama.measure.trial import Trial

ALL_LAYERS = -1  # n_gpu_layers: all


@dataclass(frozen=True)
class Workload:
    """The tests of a setup: prompt lengths, generation lengths and pairs, at every depth."""

    n_prompt: tuple[int, ...] = (512,)
    n_gen: tuple[int, ...] = (128,)
    n_pg: tuple[tuple[int, int], ...] = ()
    n_depth: tuple[int, ...] = (0,)

    def trials(self) -> tuple[Trial, ...]:
        """The tests in llama-bench's order; a length of 0 is no test."""
        pairs = [*((prompt, 0) for prompt in self.n_prompt), *((0, gen) for gen in self.n_gen), *self.n_pg]
        return tuple(Trial(*pair, depth) for depth in self.n_depth for pair in pairs if any(pair))


@dataclass(frozen=True)
class Setup:
    """Settings of a measurement; the field names are llama-bench's."""

    model: Path
    n_threads: int
    n_gpu_layers: int = ALL_LAYERS
    n_batch: int = 2048
    n_ubatch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    load_mode: str = "auto"


@dataclass(frozen=True)
class Plan:
    """Lists of values; `setups` yields their combinations, with the model as the outer loop."""

    models: tuple[Path, ...]
    n_threads: tuple[int, ...]
    n_gpu_layers: tuple[int, ...] = (ALL_LAYERS,)
    n_batch: tuple[int, ...] = (2048,)
    n_ubatch: tuple[int, ...] = (512,)
    type_k: tuple[str, ...] = ("f16",)
    type_v: tuple[str, ...] = ("f16",)
    load_mode: tuple[str, ...] = ("auto",)
    workload: Workload = Workload()

    def setups(self) -> Iterator[Setup]:
        """All combinations, in llama-bench's order."""
        for model, layers, mode, batch, ubatch, type_k, type_v, threads in product(
            self.models, self.n_gpu_layers, self.load_mode, self.n_batch, self.n_ubatch, self.type_k, self.type_v,
            self.n_threads,
        ):  # fmt: skip
            yield Setup(model, threads, layers, batch, ubatch, type_k, type_v, mode)
