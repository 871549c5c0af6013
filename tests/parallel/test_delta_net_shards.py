"""Gated DeltaNet layers on several devices: each computes its heads, and the sum is the layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from numpy_delta_net import delta_net

from minillama.errors import OptionError
from minillama.gguf import Tensor
from minillama.model.layer_kinds import DeltaNet
from minillama.parallel.sharding.delta_net_shards import (
    DELTA_NET_FIELDS,
    devices_of_blocks,
    key_heads_of,
    rows_of_device,
)
from minillama.parallel.sharding.partition_specs import share_of_delta_net

D, SIZE, EPSILON = 16, 8, 1e-5
RNG = np.random.default_rng(0)


def weights(layer: DeltaNet, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Random tensors by their names, of the sizes that `key_heads_of` states."""
    found = {"ssm_norm.weight": RNG.uniform(1, 2, layer.size)}
    for field in fields:
        count = len(key_heads_of(layer, field))
        shapes = {"ssm_conv1d": (count, layer.taps), "ssm_dt": (count,), "ssm_a": (count,), "ssm_out": (D, count)}
        name = {"ssm_dt": "ssm_dt.bias", "ssm_a": "ssm_a"}.get(field, f"{field}.weight")
        found[name] = RNG.standard_normal(shapes.get(field, (count, D)))
    return found | {"ssm_a": -np.abs(found["ssm_a"])}


@pytest.mark.parametrize(
    ("grouped", "absent"),
    [
        (False, ("ssm_in", "ssm_ba")), (True, ("ssm_in", "ssm_ba")), (True, ("ssm_in", "ssm_beta", "ssm_alpha")),
        (True, ("attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("devices", [2, 4])
def test_devices_add_up(grouped: bool, absent: tuple[str, ...], devices: int) -> None:
    layer = DeltaNet(key_heads=4, value_heads=12, size=SIZE, taps=3, grouped=grouped)
    fields = tuple(field for field in DELTA_NET_FIELDS if field not in absent)
    whole, h = weights(layer, fields), RNG.standard_normal((7, D))
    expected = delta_net(h, whole, (4, 12, SIZE), EPSILON, grouped)
    own, total = share_of_delta_net(layer, devices), np.zeros_like(expected)
    for index in range(devices):
        shard = dict(whole)
        for field in fields:
            rows = rows_of_device(layer, field, index, devices)
            name = next(name for name in whole if name.split(".")[0] == field)
            shard[name] = whole[name][:, rows] if field == "ssm_out" else whole[name][rows]
        total += delta_net(h, shard, (own.key_heads, own.value_heads, SIZE), EPSILON, grouped)
    np.testing.assert_allclose(total, expected, atol=1e-10 * np.abs(expected).max())


def test_heads_that_do_not_divide() -> None:
    layer = DeltaNet(key_heads=6, value_heads=12, size=SIZE, taps=4, grouped=False)
    with pytest.raises(
        OptionError, match="6 key heads of Gated DeltaNet do not divide among 4 devices; use 1, 2, 3, 6"
    ):
        share_of_delta_net(layer, 4)


def test_a_block_of_columns_of_two_devices(tmp_path: Path) -> None:
    layer = DeltaNet(key_heads=2, value_heads=4, size=16, taps=4, grouped=False)  # of every 32 columns 16 each
    tensor = Tensor("blk.0.ssm_out.weight", (8, 64), Type.Q8_0, np.zeros((8, 68), np.uint8), 0, tmp_path / "m.gguf")
    assert devices_of_blocks(tensor, replace(layer, grouped=True), "ssm_out", 2).tolist() == [0, 1]
    with pytest.raises(OptionError, match=r"ssm_out\.weight: the heads of a device are no whole number of Q8_0 blocks"):
        devices_of_blocks(tensor, layer, "ssm_out", 2)
