"""Bytes and weights per token, counted by hand."""

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Type
from tiny_models import VARIANTS, VOCAB, D, F, H, K, N, write_tiny

from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.measure.limits.work_per_token import cache_bytes_read, prompt_weights, weight_bytes
from minillama.model import Config, read_config
from minillama.model.config import Rope
from minillama.model.layer_kinds import Attention, DeltaNet


def config_of(path: Path) -> Config:
    file = open_gguf(path)
    return read_config(file.metadata, vocab_size=file.tensors["token_embd.weight"].shape[0])


ATTENTION = N * H * D + 2 * K * H * D + D * N * H  # weights of q, k, v and output in a tiny layer


@pytest.mark.parametrize(
    ("name", "matrices", "vectors"),
    [
        ("llama", ATTENTION + 3 * D * F, 2 * D),
        ("qwen2", ATTENTION + 3 * D * F, 2 * D + (N + 2 * K) * H),
        ("phi3", ATTENTION + 3 * D * F, 2 * D),
        ("glm4", ATTENTION + 3 * D * F, 4 * D),
        ("mixtral", ATTENTION + 4 * D + 2 * 3 * D * F, 2 * D),  # two of four experts, and their router
        ("qwen2moe", ATTENTION + 4 * D + 2 * 3 * D * F + 3 * D * F, 3 * D + (N + 2 * K) * H),
    ],
)
def test_bytes_of_a_decode_step_by_hand(name: str, matrices: int, vectors: int, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", name)
    config = config_of(path)
    layers, tied = VARIANTS[name].layers, VARIANTS[name].tied
    head = VOCAB * D + (0 if tied else D)  # an embedding that is not the head gives one row
    assert weight_bytes(open_gguf(path), config) == 4 * (layers * (matrices + vectors) + D + head)
    assert prompt_weights(open_gguf(path), config) == layers * matrices


def test_bytes_of_quantised_weights(tmp_path: Path) -> None:
    """Q8_0 takes 34 bytes for 32 weights; with quantised matrices tiny layers are 256 wide."""
    path = write_tiny(tmp_path / "tiny.gguf", "llama", Type.Q8_0)
    matrices = 2 * ((N * H + 2 * K * H) * 256 + 256 * N * H + 3 * 256 * 256) + VOCAB * 256 + 256
    vectors = 5 * 256  # two norms in each of two layers, and the last
    assert weight_bytes(open_gguf(path), config_of(path)) == matrices * 34 // 32 + 4 * vectors


def test_bytes_of_the_cache(tmp_path: Path) -> None:
    config = config_of(write_tiny(tmp_path / "tiny.gguf", "llama"))
    per_position = 2 * K * 2 * H  # layers x heads x (key and value)
    assert cache_bytes_read(config, read_cache_types("f16", "f16"), [1]) == 2 * per_position
    assert cache_bytes_read(config, read_cache_types("f32", "f16"), [10, 20]) == 15 * 3 * per_position
    # Six of seven layers look no further back than five positions.
    local = config_of(write_tiny(tmp_path / "local.gguf", "gemma3"))
    assert cache_bytes_read(local, read_cache_types("f16", "f16"), [100]) == 2 * K * 2 * H * (100 + 6 * 5)
    blocks = config_of(write_tiny(tmp_path / "blocks.gguf", "qwen3"))  # heads of 32
    assert cache_bytes_read(blocks, read_cache_types("q8_0", "q8_0"), [3]) == 3 * 2 * K * 2 * 34


def test_a_recurrent_state_is_read_and_written_at_any_position() -> None:
    attention, memory = Attention(4, 2, 16, 16, 0.25), DeltaNet(2, 4, 32, 4, grouped=False)
    config = Config("qwen35", 256, 64, (memory, memory, attention), 1e-5, (Rope(16, 1e4),), 300)
    types = read_cache_types("f16", "f16")
    state = 4 * (4 * 32 * 32 + 256 * 3)
    assert cache_bytes_read(config, types, [10, 20]) == 2 * 2 * state + 15 * 2 * 2 * (16 + 16)
