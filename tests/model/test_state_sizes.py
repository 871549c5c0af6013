"""Bytes of the states of layers, by kind, against the arrays of an empty cache."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest
from tiny_models import write_tiny

from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config, cache_bytes, empty_cache, read_config
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer, Mamba2, ShortConvolution
from minillama.model.state_sizes import StateGrowth, state_bytes, state_growth
from minillama.model.states.window import WindowKeyValues

TYPES = CacheTypes()
FULL = Attention(8, 2, 64, 32, scale=0.125)
LOCAL = replace(FULL, sliding_window=100)
BORROWED = replace(FULL, source=0)
LATENT = LatentAttention(16, kv_lora_rank=512, rope_length=64, key_length=192, value_length=128, scale=0.1)
DELTA = DeltaNet(key_heads=2, value_heads=6, size=8, taps=4, grouped=True)
MAMBA = Mamba2(heads=4, groups=2, head_length=8, state_length=16, taps=4)
CONVOLUTION = ShortConvolution(channels=32, taps=3)
NETWORK = Layer()


def config_of(*layers: Layer) -> Config:
    return replace(Config("llama", 4096, 64, (), 1e-5, (), 300), layers=layers)


def held_bytes(config: Config, capacity: int, chunk: int | None) -> int:
    """Bytes of the arrays, without the places of the windows."""
    layers = empty_cache(config, capacity, TYPES, chunk=chunk).layers
    windows = sum(isinstance(layer, WindowKeyValues) for layer in layers)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(layers)) - 4 * windows


@pytest.mark.parametrize(
    ("layer", "chunk", "formula"),
    [
        (FULL, 512, lambda n: n * 2 * (64 + 32) * 2),
        (LOCAL, None, lambda n: n * 2 * (64 + 32) * 2),
        (LOCAL, 512, lambda n: min(n, 768) * 2 * (64 + 32) * 2),  # 100 + 64 + 512, rounded up
        (LATENT, 512, lambda n: n * 576 * 2),
        (DELTA, 512, lambda n: 4 * (6 * 8 * 8 + (2 * 16 + 48) * 3)),
        (MAMBA, 512, lambda n: 4 * (4 * 8 * 16 + (32 + 2 * 2 * 16) * 3)),
        (CONVOLUTION, 512, lambda n: 4 * 32 * 2),
        (BORROWED, 512, lambda n: 0),
        (NETWORK, 512, lambda n: 0),
    ],
)
def test_the_formula_of_each_kind(layer: Layer, chunk: int | None, formula) -> None:
    for positions in (256, 768, 2048):
        size = state_bytes(layer, positions, TYPES, chunk=chunk)
        assert size == formula(positions) == held_bytes(config_of(layer), positions, chunk)


def test_growth_of_a_mixture() -> None:
    config = config_of(FULL, DELTA, LOCAL, LATENT, BORROWED, NETWORK, MAMBA)
    found = state_growth(config, TYPES, 512)
    recurrent = state_bytes(DELTA, 1, TYPES) + state_bytes(MAMBA, 1, TYPES)
    assert found == StateGrowth(384 + 1152, 768 * 384, recurrent, 2, 1, 2)
    short = state_growth(replace(config, context_length=256), TYPES, 512)
    assert short.windows == 256 * 384  # a window is never longer than the context
    for context in (768, 4096):
        assert cache_bytes(config, context, TYPES, chunk=512) == (
            context * found.per_token + found.windows + found.recurrent
        )


FAMILIES = ["gemma", "gemma2", "glm4moe", "deepseek2", "gemma4", "qwen35", "lfm2", "granitehybrid", "nemotron_h"]


@pytest.mark.parametrize("name", FAMILIES)
def test_growth_of_families(tmp_path: Path, name: str) -> None:
    """The bytes of a cache are those of its arrays, and follow from their growth."""
    file = open_gguf(write_tiny(tmp_path / "m.gguf", name))
    config = read_config(file.metadata, 300)
    growth = state_growth(config, TYPES, 32)
    large = max(2048, config.context_length)
    assert cache_bytes(config, large, TYPES, chunk=32) == held_bytes(config, large, 32)
    assert cache_bytes(config, config.context_length, TYPES, chunk=32) == (
        config.context_length * growth.per_token + growth.windows + growth.recurrent
    )
