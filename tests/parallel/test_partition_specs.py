"""Assignment of attention heads to devices, and the table of PartitionSpecs."""

import gguf
import pytest
from gguf import MODEL_ARCH
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VARIANTS, write_tiny

from minillama.errors import OptionError
from minillama.gguf import open_gguf
from minillama.model import Config, read_config
from minillama.model.params import Block
from minillama.parallel.sharding.head_assignment import assign_heads
from minillama.parallel.sharding.partition_specs import AXIS, COLUMNS, ROWS, SPECS, per_device_config


def config_with(heads: int, kv_heads: int, **others: object) -> Config:
    return read_config(
        {
            "general.architecture": "llama",
            "llama.context_length": 64,
            "llama.embedding_length": 16 * heads,
            "llama.block_count": 1,
            "llama.feed_forward_length": 64,
            "llama.attention.head_count": heads,
            "llama.attention.head_count_kv": kv_heads,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            **others,
        },
        vocab_size=300,
    )


@given(groups=st.integers(1, 6), kv_heads=st.integers(1, 12), devices=st.integers(1, 24))
def test_devices_hold_the_key_heads_of_their_query_heads(groups: int, kv_heads: int, devices: int) -> None:
    heads = groups * kv_heads
    config = config_with(heads, kv_heads)
    try:
        found = assign_heads(config.attention, devices)
    except OptionError:
        assert not fits(heads, kv_heads, devices)
        return
    assert fits(heads, kv_heads, devices)
    for place in range(devices):
        queries = range(place * found.head_count, (place + 1) * found.head_count)
        share = place * found.kv_shards // devices
        keys = range(share * found.head_count_kv, (share + 1) * found.head_count_kv)
        assert {query // groups for query in queries} == set(keys)
    assert found.kv_replicas * found.kv_shards == devices
    assert found.kv_replicas == (1 if devices <= kv_heads else devices // kv_heads)


def fits(heads: int, kv_heads: int, devices: int) -> bool:
    """True if query heads divide evenly, into whole groups or equal parts of one."""
    return heads % devices == 0 and (kv_heads % devices == 0 or devices % kv_heads == 0)


@given(groups=st.integers(1, 6), kv_heads=st.integers(1, 6), devices=st.integers(2, 40))
def test_error_lists_possible_numbers(groups: int, kv_heads: int, devices: int) -> None:
    config = config_with(groups * kv_heads, kv_heads)
    if fits(config.head_count, kv_heads, devices):
        return
    with pytest.raises(OptionError) as caught:
        assign_heads(config.attention, devices)
    line = str(caught.value)
    assert line.startswith(f"{config.head_count} query heads over {kv_heads} key/value heads do not divide among ")
    assert f"{devices} devices" in line and line.endswith("or split_mode=layer")
    offered = line.split("; use ")[1].split(" devices")[0]
    possible = [n for n in range(1, config.head_count + 1) if fits(config.head_count, kv_heads, n)]
    assert [int(number) for number in offered.split(", ")] == possible


@pytest.mark.parametrize("devices", [0, -1])
def test_no_devices(devices: int) -> None:
    with pytest.raises(OptionError, match=f"tensor_parallel is {devices}; expected at least 1 device"):
        assign_heads(config_with(4, 2).attention, devices)


@pytest.mark.parametrize("name", VARIANTS)
def test_per_device_config(tmp_path, name: str) -> None:  # type: ignore[no-untyped-def]
    file = open_gguf(write_tiny(tmp_path / "m.gguf", name))
    config = read_config(file.metadata, vocab_size=300)
    own = per_device_config(config, 4)
    assert (own.head_count, own.head_count_kv, own.axis) == (1, 1, AXIS)
    assert own.attention.scale == config.attention.scale
    assert (own.embedding_length, own.vocab_size, own.key_length) == (64, 300, config.key_length)


def test_table_is_complete() -> None:
    fields = set(Block.__dataclass_fields__) - {"attn_qkv"}
    assert fields <= set(SPECS), fields - set(SPECS)
    known = {name.removeprefix("blk.{bid}.").replace(".", "_") for name in gguf.TENSOR_NAMES.values()}
    tensors = {name.removesuffix("_bias") for name in SPECS} - known  # scales belong to a matrix
    assert {name.removesuffix("_scale") for name in tensors} <= known
    assert gguf.MODEL_TENSORS[MODEL_ARCH.LLAMA]
    for rows, columns in (("attn_q", "attn_output"), ("ffn_up", "ffn_down"), ("ffn_up_exps", "ffn_down_exps")):
        assert (SPECS[rows], SPECS[columns]) == (ROWS, COLUMNS)
