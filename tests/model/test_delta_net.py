"""Gated DeltaNet layers against numpy: all forms of their tensors, padded prompts, and their metadata."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_delta_net import delta_net

from minillama.errors import FormatError
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.kernels import Dense
from minillama.model.architectures import KeySharing
from minillama.model.cache import empty_state
from minillama.model.config import Config, Rope
from minillama.model.context import pass_context
from minillama.model.layer_kinds import DeltaNet
from minillama.model.layers.recurrent.delta_net import delta_net_mixer
from minillama.model.params import Block, Linear
from minillama.model.reading.metadata_keys import MetadataKeys
from minillama.model.reading.read_delta_net import read_delta_net, read_recurrent_layers
from minillama.model.state_sizes import state_bytes
from minillama.model.states.recurrent import RecurrentState

D, TIME, EPSILON = 32, 19, 1e-5
LAYER = DeltaNet(key_heads=2, value_heads=6, size=8, taps=4, grouped=True)
KEYS = {
    "ssm.group_count": 2,
    "ssm.time_step_rank": 4,
    "ssm.state_size": 32,
    "ssm.inner_size": 128,
    "ssm.conv_kernel": 4,
}


def tensors(*, is_legacy: bool, has_ba: bool) -> dict[str, np.ndarray]:
    """A layer's tensors by their names in the file, without `blk.N.`."""
    rng = np.random.default_rng(3)
    rows = {"ssm_ba": 12} if has_ba else {"ssm_beta": 6, "ssm_alpha": 6}
    rows |= {"ssm_in": 128} if is_legacy else {"attn_qkv": 80, "attn_gate": 48}
    found = {f"{name}.weight": rng.standard_normal((count, D)) / np.sqrt(D) for name, count in rows.items()}
    found |= {"ssm_conv1d.weight": rng.standard_normal((80, 4)), "ssm_out.weight": rng.standard_normal((D, 48))}
    found |= {
        "ssm_dt.bias": rng.standard_normal(6),
        "ssm_a": -rng.uniform(0.1, 2, 6),
        "ssm_norm.weight": rng.uniform(1, 2, 8),
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def block(weights: dict[str, np.ndarray]) -> Block:
    fields: dict[str, Linear | jax.Array] = {}
    for name, value in weights.items():
        field = name.split(".")[0]
        is_array = field in ("ssm_conv1d", "ssm_dt", "ssm_a", "ssm_norm")
        fields[field] = jnp.asarray(value) if is_array else Linear(Dense(jnp.asarray(value)))
    return Block(**fields)


def empty(layer: DeltaNet, batch: int = 1) -> RecurrentState:
    return empty_state(layer, 8, CacheTypes(), batch)


@jax.jit
def run(p: Block, h: jax.Array, state: RecurrentState, valid: jax.Array) -> tuple[jax.Array, RecurrentState]:
    config = Config("qwen3next", 256, D, (LAYER,), EPSILON, (Rope(8, 1e4),), 10)
    ctx = replace(pass_context(config, None, jnp.zeros(h.shape[0], jnp.int32), h.shape[1]), valid=valid)
    mixed, state = delta_net_mixer(p, h, state, ctx, LAYER)
    return p.ssm_out(mixed), state


@pytest.mark.parametrize(("is_legacy", "has_ba"), [(False, False), (False, True), (True, True)])
def test_the_formula(is_legacy: bool, has_ba: bool) -> None:
    weights = tensors(is_legacy=is_legacy, has_ba=has_ba)
    h = np.random.default_rng(4).standard_normal((2, TIME, D)).astype(np.float32)
    got, _ = run(block(weights), jnp.asarray(h), empty(LAYER, 2), jnp.full(2, TIME, jnp.int32))
    for b in range(2):
        expected = delta_net(h[b], weights, (2, 6, 8), EPSILON, grouped=True)
        np.testing.assert_allclose(np.asarray(got[b]), expected, atol=2e-5 * np.abs(expected).max())


def test_padded_tokens_change_nothing() -> None:
    """Two texts of other lengths in one batch: outputs and states are those of the whole texts."""
    p = block(tensors(is_legacy=False, has_ba=False))
    h = jnp.asarray(np.random.default_rng(4).standard_normal((2, TIME, D)), jnp.float32)
    whole, state = run(p, h, empty(LAYER, 2), jnp.full(2, TIME, jnp.int32))
    cut = jnp.array([0, 11], jnp.int32)
    first, between = run(p, h, empty(LAYER, 2), cut)
    np.testing.assert_array_equal(np.asarray(between.memory[0]), 0)
    rest = jnp.stack([h[0], jnp.roll(h[1], -11, axis=0)])
    second, after = run(p, rest, between, TIME - cut)
    np.testing.assert_allclose(np.asarray(after.memory), np.asarray(state.memory), atol=1e-5)
    np.testing.assert_array_equal(np.asarray(after.tail), np.asarray(state.tail))
    joined = np.concatenate([first[1, :11], second[1, : TIME - 11]])
    np.testing.assert_allclose(joined, np.asarray(whole[1]), atol=1e-5)


def test_bytes_of_a_state() -> None:
    leaves = jax.tree.leaves(empty(LAYER, 3))
    assert sum(leaf.nbytes for leaf in leaves) == state_bytes(LAYER, 8, CacheTypes(), 3) == 3 * 4 * (6 * 64 + 80 * 3)


class TestMetadata:
    @staticmethod
    def keys(**values: object) -> MetadataKeys:
        given = KEYS | {name.replace("__", "."): value for name, value in values.items()}
        return MetadataKeys({f"qwen35.{key}": value for key, value in given.items() if value is not None}, "qwen35")

    def test_sizes(self) -> None:
        assert read_delta_net(self.keys(), KeySharing.MODULO) == DeltaNet(2, 4, 32, 4, grouped=False)
        assert read_delta_net(self.keys(), KeySharing.GROUPED).grouped

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("ssm__group_count", 3, "ssm.time_step_rank is 4; expected a multiple of the 3 key heads"),
            ("ssm__inner_size", 96, "ssm.inner_size is 96; expected 4 value heads of 32"),
            ("ssm__conv_kernel", 1, "ssm.conv_kernel is 1"),
            ("ssm__state_size", None, "ssm.state_size is missing"),
        ],
    )
    def test_impossible_sizes(self, key: str, value: object, message: str) -> None:
        with pytest.raises(FormatError, match=message):
            read_delta_net(self.keys(**{key: value}), KeySharing.MODULO)

    @pytest.mark.parametrize(
        ("keys", "attention"),
        [
            ({}, [3, 7]), ({"full_attention_interval": 3}, [2, 5]), ({"attention__recurrent_layers": True}, []),
            ({"attention__recurrent_layers": np.arange(9) > 1, "full_attention_interval": 3}, [0, 1]),
        ],
    )  # fmt: skip
    def test_recurrent_layers(self, keys: dict[str, object], attention: list[int]) -> None:
        found = read_recurrent_layers(self.keys(**keys), 8)
        assert [layer for layer, is_recurrent in enumerate(found) if not is_recurrent] == attention

    @pytest.mark.parametrize("flags", [np.array([True]), np.arange(8.0), "all"])
    def test_impossible_flags(self, flags: object) -> None:
        with pytest.raises(FormatError, match=r"attention\.recurrent_layers has no flag for each of 8 layers"):
            read_recurrent_layers(self.keys(attention__recurrent_layers=flags), 8)
