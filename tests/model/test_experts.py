"""The mixture of experts against its reference implementation, and what it does not compute."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from weights_in_memory import in_file

from minillama.kernels import Dense
from minillama.model import Config
from minillama.model.architectures import Gating
from minillama.model.config import Experts, Rope
from minillama.model.context import PassContext, pass_context
from minillama.model.layer_kinds import Attention
from minillama.model.layers.experts import mix_experts
from minillama.model.layers.routing import sort_choices
from minillama.model.params import Block, Linear

E, U, D, F = 5, 2, 32, 64
CONFIG = Config(
    "gpt-oss", 64, D, (Attention(1, 1, 16, 16, 1.0),), 1e-5, (Rope(16, 1e4),), 8,
    experts=Experts(E, U, Gating.SOFTMAX_OF_CHOSEN, normalise=False),
)  # fmt: skip
NAMES = ("gate_inp", "gate_exps", "up_exps", "down_exps")
SHAPES = {"gate_inp": (E, D), "gate_exps": (E, F, D), "up_exps": (E, F, D), "down_exps": (E, D, F)}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def gpt_oss_experts(h: np.ndarray, used: int, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Token by token, in float64: softmax of the chosen, clamped SwiGLU, biases; h [T, D]."""
    w, b = ({name: tensors[f"ffn_{name}.{kind}"] for name in NAMES} for kind in ("weight", "bias"))
    out = np.zeros_like(h)
    for t, x in enumerate(h):
        logits = w["gate_inp"] @ x + b["gate_inp"]
        chosen = np.argsort(-logits)[:used]
        for e, share in zip(chosen, softmax(logits[chosen]), strict=True):
            gate = np.minimum(w["gate_exps"][e] @ x + b["gate_exps"][e], 7)
            up = np.clip(w["up_exps"][e] @ x + b["up_exps"][e], -7, 7)
            opened = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
            out[t] += share * (w["down_exps"][e] @ opened + b["down_exps"][e])
    return out


def tensors(favourite: int | None = None) -> dict[str, np.ndarray]:
    """Random weights and biases; favourite: an expert that every token chooses."""
    rng, found = np.random.default_rng(4), {}
    for name, shape in SHAPES.items():
        found[f"ffn_{name}.weight"] = rng.standard_normal(shape).astype(np.float32) / 4
        found[f"ffn_{name}.bias"] = rng.standard_normal(shape[:-1]).astype(np.float32)
    if favourite is not None:
        found["ffn_gate_inp.bias"][favourite] += 100
    return found


def block(given: dict[str, np.ndarray], *, in_place: bool) -> Block:
    fields = {}
    for name in NAMES:
        values, bias = given[f"ffn_{name}.weight"], jnp.asarray(given[f"ffn_{name}.bias"])
        weight = in_file(values.view(np.uint8), Type.F32, values.shape) if in_place else Dense(jnp.asarray(values))
        fields[f"ffn_{name}"] = Linear(weight, bias)
    return Block(**fields)


def context(batch: int, time: int, valid: list[int] | None = None) -> PassContext:
    n_valid = None if valid is None else jnp.asarray(np.array(valid, np.int32))
    return pass_context(CONFIG, None, jnp.zeros(batch, jnp.int32), time, valid=n_valid)


def hidden(batch: int, time: int) -> np.ndarray:
    return np.random.default_rng(time).standard_normal((batch, time, D)).astype(np.float32)


@pytest.mark.parametrize("in_place", [True, False], ids=["kernels", "XLA"])
@pytest.mark.parametrize("favourite", [None, 3])
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 5), (2, 1), (2, 30)])
def test_the_formula(batch: int, time: int, favourite: int | None, in_place: bool) -> None:
    given, h = tensors(favourite), hidden(batch, time)
    expected = gpt_oss_experts(h.reshape(-1, D).astype(np.float64), U, given)
    got = jax.jit(mix_experts)(block(given, in_place=in_place), jnp.asarray(h), context(batch, time))
    np.testing.assert_allclose(np.asarray(got).reshape(-1, D), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("in_place", [True, False], ids=["kernels", "XLA"])
def test_padded_tokens_have_no_part(in_place: bool) -> None:
    """They are not a number, and give zeros; other tokens are as without them."""
    given, h = tensors(), hidden(2, 30)
    run = jax.jit(partial(mix_experts, block(given, in_place=in_place)))
    for valid in ([30, 1], [7, 22]):
        spoilt = h.copy()
        for text, count in enumerate(valid):
            spoilt[text, count:] = np.nan
        got = np.asarray(run(jnp.asarray(spoilt), context(2, 30, valid)))
        for text, count in enumerate(valid):
            expected = gpt_oss_experts(h[text, :count].astype(np.float64), U, given)
            np.testing.assert_allclose(got[text, :count], expected, rtol=1e-4, atol=1e-4)
            assert not got[text, count:].any()


@given(data=st.data())
def test_choices_are_sorted_by_expert(data: st.DataObject) -> None:
    tokens = 9
    chosen = np.array([data.draw(st.permutations(range(E)))[:U] for _ in range(tokens)], np.int32)
    counted = np.array(data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)))
    found = sort_choices(jnp.asarray(chosen), E, jnp.asarray(counted))
    starts, ends, order = (np.asarray(a) for a in (found.groups.starts, found.groups.ends, found.rows))
    assert sorted(order.reshape(-1)) == list(range(tokens * U))
    assert starts[0] == 0 and ends[-1] == U * counted.sum() and (starts[1:] == ends[:-1]).all()
    for t, u in np.ndindex(tokens, U):
        row, expert = order[t, u], chosen[t, u]
        assert found.tokens[row] == t
        if counted[t]:
            assert starts[expert] <= row < ends[expert] and found.experts[row] == expert
        else:
            assert row >= ends[-1]


def test_a_token_alone_reads_its_experts_in_the_router_s_order() -> None:
    found = sort_choices(jnp.asarray(np.array([[4, 1]], np.int32)), E)
    assert (
        found.groups.matrices.tolist() == [4, 1]
        and found.groups.starts.tolist() == [0, 1]
        and found.groups.ends.tolist() == [1, 2]
    )
