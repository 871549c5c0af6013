"""Recurrent layers on several devices: each computes its heads or channels, and the sum is the layer."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from numpy_delta_net import delta_net
from numpy_state_space import mamba2, short_convolution

from minillama.errors import OptionError
from minillama.gguf import Tensor
from minillama.model.layer_kinds import DeltaNet, Layer, Mamba2, ShortConvolution
from minillama.parallel.sharding.head_assignment import layer_of_device
from minillama.parallel.sharding.recurrent_shards import (
    PICKED_FIELDS,
    devices_of_blocks,
    key_heads_of,
    rows_of_device,
)

D, SIZE, EPSILON = 16, 8, 1e-5
RNG = np.random.default_rng(0)


Weights = Mapping[str, np.ndarray]


def delta_net_weights(layer: DeltaNet, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Random tensors by their names, of the sizes that `key_heads_of` states."""
    found = {"ssm_norm.weight": RNG.uniform(1, 2, layer.size)}
    for field in fields:
        count = len(key_heads_of(layer, field))
        shapes = {"ssm_conv1d": (count, layer.taps), "ssm_dt": (count,), "ssm_a": (count,), "ssm_out": (D, count)}
        name = {"ssm_dt": "ssm_dt.bias", "ssm_a": "ssm_a"}.get(field, f"{field}.weight")
        found[name] = RNG.standard_normal(shapes.get(field, (count, D)))
    return found | {"ssm_a": -np.abs(found["ssm_a"])}


def pick(layer: Layer, names: Mapping[str, str], whole: Weights, index: int, devices: int) -> dict[str, np.ndarray]:
    """The weights of a device; names: of the tensors of fields that are picked by rows."""
    rows = {name: rows_of_device(layer, field, index, devices) for field, name in names.items()}
    return {name: tensor[rows[name]] if name in rows else tensor for name, tensor in whole.items()}


def check_sum(layer: Layer, devices: int, run: Callable[[Layer, int | None], np.ndarray]) -> None:
    """run: the output of a layer with the weights of a device, or with all."""
    expected, own = run(layer, None), layer_of_device(layer, devices)
    total = sum(run(own, index) for index in range(devices))
    np.testing.assert_allclose(total, expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("grouped", "absent"),
    [
        (False, ("ssm_in", "ssm_ba")), (True, ("ssm_in", "ssm_ba")), (True, ("ssm_in", "ssm_beta", "ssm_alpha")),
        (True, ("attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("devices", [2, 4])
def test_delta_net(grouped: bool, absent: tuple[str, ...], devices: int) -> None:
    layer = DeltaNet(key_heads=4, value_heads=12, size=SIZE, taps=3, grouped=grouped)
    fields = tuple(field for field in PICKED_FIELDS[DeltaNet] if field not in absent)
    whole, h = delta_net_weights(layer, fields), RNG.standard_normal((7, D))
    names = {name.split(".")[0]: name for name in whole if name not in ("ssm_norm.weight", "ssm_out.weight")}

    def run(part: DeltaNet, index: int | None) -> np.ndarray:
        shard = whole
        if index is not None:
            columns = rows_of_device(layer, "ssm_out", index, devices)
            shard = pick(layer, names, whole, index, devices) | {"ssm_out.weight": whole["ssm_out.weight"][:, columns]}
        return delta_net(h, shard, (part.key_heads, part.value_heads, SIZE), EPSILON, grouped)

    check_sum(layer, devices, run)


@pytest.mark.parametrize(("groups", "devices"), [(4, 2), (2, 2), (2, 4), (1, 2), (1, 8), (8, 8)])
def test_mamba2(groups: int, devices: int) -> None:
    """Where devices share a group: with a large epsilon, every part has the same norm."""
    layer, state, epsilon = Mamba2(8, groups, 4, 3, 4), 3, EPSILON if devices <= groups else 1e30
    inner, channels = layer.inner, layer.channels
    shapes = {
        "ssm_in.weight": (inner + channels + 8, D), "ssm_conv1d.weight": (channels, 4), "ssm_conv1d.bias": (channels,),
        "ssm_dt.bias": (8,), "ssm_a": (8, 1), "ssm_d": (8, 1), "ssm_norm.weight": (inner,),
        "ssm_out.weight": (D, inner),
    }  # fmt: skip
    whole = {name: RNG.standard_normal(shape) for name, shape in shapes.items()}
    whole["ssm_a"] = -np.abs(whole["ssm_a"])
    names = {name.removesuffix(".weight").replace(".bias", "_bias"): name for name in whole if name != "ssm_out.weight"}
    names["ssm_dt"] = names.pop("ssm_dt_bias")
    assert set(names) == set(PICKED_FIELDS[Mamba2])
    h = RNG.standard_normal((7, D))

    def run(part: Mamba2, index: int | None) -> np.ndarray:
        shard = dict(whole)
        if index is not None:
            columns = np.split(whole["ssm_out.weight"], devices, axis=1)[index]
            shard = pick(layer, names, whole, index, devices) | {"ssm_out.weight": columns}
        shard["ssm_norm.weight"] = shard["ssm_norm.weight"].reshape(part.groups, -1)
        return mamba2(h, shard, (part.inner, state, part.heads, part.groups), epsilon)

    check_sum(layer, devices, run)
    assert layer_of_device(layer, devices).devices_per_group == max(1, devices // groups)


@pytest.mark.parametrize("devices", [2, 4])
def test_short_convolution(devices: int) -> None:
    layer, h = ShortConvolution(D, 3), RNG.standard_normal((7, D))
    shapes = {"in_proj": (3 * D, D), "conv": (D, 3), "out_proj": (D, D)}
    whole = {f"shortconv.{name}.weight": RNG.standard_normal(shape) for name, shape in shapes.items()}
    names = {f"shortconv_{name}": f"shortconv.{name}.weight" for name in ("in_proj", "conv")}

    def run(part: ShortConvolution, index: int | None) -> np.ndarray:
        if index is None:
            return short_convolution(h, whole)
        columns = np.split(whole["shortconv.out_proj.weight"], devices, axis=1)[index]
        shard = pick(layer, names, whole, index, devices) | {"shortconv.out_proj.weight": columns}
        assert len(shard["shortconv.conv.weight"]) == part.channels
        return short_convolution(h, shard)

    check_sum(layer, devices, run)


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (
            DeltaNet(6, 12, 8, 4, False),
            "6 key heads of Gated DeltaNet do not divide among 4 devices; use 1, 2, 3, 6",
        ),
        (Mamba2(6, 2, 4, 3, 4), "6 heads of Mamba-2 over 2 groups do not divide among 4 devices; use 1, 2, 6"),
        (Mamba2(12, 3, 4, 3, 4), "12 heads of Mamba-2 over 3 groups do not divide among 4 devices; use 1, 3, 6, 12"),
        (ShortConvolution(6, 3), "6 channels of a short convolution do not divide among 4 devices; use 1, 2, 3, 6"),
    ],
)
def test_numbers_that_do_not_divide(layer: Layer, line: str) -> None:
    with pytest.raises(OptionError, match=f"^{line} devices, or split_mode=layer$"):
        layer_of_device(layer, 4)


def test_a_block_of_columns_of_two_devices(tmp_path: Path) -> None:
    layer = DeltaNet(key_heads=2, value_heads=4, size=16, taps=4, grouped=False)  # of every 32 columns 16 each
    tensor = Tensor("blk.0.ssm_out.weight", (8, 64), Type.Q8_0, np.zeros((8, 68), np.uint8), 0, tmp_path / "m.gguf")
    assert devices_of_blocks(tensor, replace(layer, grouped=True), "ssm_out", 2).tolist() == [0, 1]
    with pytest.raises(OptionError, match=r"ssm_out\.weight: the heads of a device are no whole number of Q8_0 blocks"):
        devices_of_blocks(tensor, layer, "ssm_out", 2)
