"""Models on the device under test: the accelerator if JAX finds one, else the second of two virtual processors.

Layers that are not on it are on the processor, as with -ngl; so one set of checks runs with an accelerator and without.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from numpy_forward import forward

import minillama as ml
from minillama.engine.loading.layer_placement import split_layers
from minillama.gguf import dequantize, open_gguf
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import write_random_model

LAYERS, CONTEXT = 4, 1024
EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}


def platform() -> str:
    """JAX's platform in the process of the checks."""
    return jax.default_backend()


def device_under_test() -> jax.Device:
    return jax.devices()[0 if platform() != "cpu" else 1]


def write_model(path: Path, kind: str) -> Path:
    """A small model of the house, with layers to split and room for a long text."""
    return write_random_model(path, replace(shape_named("tiny"), layers=LAYERS, context=CONTEXT), kind)


def open_on_device(path: Path, layers: int | None = None, **options: Any) -> ml.LLM:
    """A model with its last `layers` layers and the head on the device, all by default, the others on the processor."""
    options = {"ctx_size": CONTEXT, "progress": False, **options}
    if platform() != "cpu":
        return ml.load(path, n_gpu_layers=layers, **options)

    def place(sharing: Any, config: Any, n_gpu_layers: Any) -> Any:
        return split_layers(config.block_count, layers, jax.devices("cpu")[0], [device_under_test()])

    with patch("minillama.engine.load.place", place):
        return ml.load(path, **options)


def reference_logits(path: Path, ids: list[int]) -> np.ndarray:
    """Logits [T, V] of the dequantised weights, computed in float64 numpy."""
    file = open_gguf(path)
    tensors = {name: dequantize(tensor).astype(np.float64) for name, tensor in file.tensors.items()}
    return forward(file.metadata, tensors, ids, CONTEXT).astype(np.float32)


def equal_but_for_ties(llm: ml.LLM, prompt: list[int], one: list[int], other: list[int], margin: float) -> bool:
    """Whether two greedy texts first differ where the best two logits are closer than `margin` std, or nowhere."""
    differing = [at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if not differing:
        return True
    last = llm.logits([*prompt, *one[: differing[0]]])[-1]
    second, first = np.sort(last)[-2:]
    return bool(first - second < margin * last.std())
