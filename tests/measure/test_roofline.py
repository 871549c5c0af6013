"""Roofline: predictions and formulas by hand, and measurements on this machine."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VOCAB, D, F, H, N, write_tiny

from minillama import env
from minillama.errors import OptionError, ResourceError
from minillama.gguf import TensorType, open_gguf
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.kernels import matmul
from minillama.measure.limits import bandwidth, roofline
from minillama.measure.limits.roofline import Roofline, main_weight_type, matmul_flops, measure_roofline, model_work
from minillama.measure.limits.work_per_token import (
    Work,
    cache_bytes_read,
    head_weights,
    prompt_weights,
    trial_work,
    weight_bytes,
)
from minillama.measure.trial import Trial
from minillama.model import read_config

ROOF = Roofline(bandwidth=30e9, flops=300e9, arithmetic="Q8_0", threads=2, device="cpu")
F16 = read_cache_types("f16", "f16")


def test_two_roofs_meet_at_the_ridge() -> None:
    assert ROOF.ridge == 10
    assert ROOF.attainable(2.0) == 60e9 and ROOF.attainable(10.0) == ROOF.attainable(1000.0) == 300e9
    # A model of a gigabyte for 1e9 weights decodes at bandwidth / bytes, and reads a prompt at flops / operations.
    assert ROOF.tokens_per_second(Work(1e9, 2e9)) == 30
    assert ROOF.tokens_per_second(Work(1e9 / 512, 2e9)) == 150


@given(st.floats(1, 1e12), st.floats(1, 1e12))
def test_the_slower_of_the_two_decides(size: float, operations: float) -> None:
    slower = max(size / ROOF.bandwidth, operations / ROOF.flops)
    assert ROOF.tokens_per_second(Work(size, operations)) == pytest.approx(1 / slower)


@pytest.mark.parametrize("name", ["llama", "qwen2", "mixtral", "gemma3"])
@pytest.mark.parametrize("trial", [Trial(20, 0), Trial(0, 7, 30), Trial(9, 3, 4)])
def test_work_is_the_sum_of_its_tokens(name: str, trial: Trial, tmp_path: Path) -> None:
    """The reference implementation: chunk by chunk and token by token."""
    file = open_gguf(write_tiny(tmp_path / "tiny.gguf", name))
    config = read_config(file.metadata, vocab_size=VOCAB)
    size = operations = 0.0

    def attend(position: int) -> float:
        seen = [min(position, 5) if config.layer(i).sliding_window else position for i in range(config.block_count)]
        return sum(2 * 2 * N * H * n for n in seen)  # a product with keys and one with values

    for position in range(trial.n_depth + 1, trial.positions + 1):
        operations += 2 * prompt_weights(file, config) + attend(position)
        if position > trial.n_depth + trial.n_prompt:
            size += weight_bytes(file, config) + cache_bytes_read(config, F16, [position])
            operations += 2 * VOCAB * D
    for start in range(0, trial.n_prompt, 8):
        end = min(start + 8, trial.n_prompt)
        size += weight_bytes(file, config, end - start, head=end == trial.n_prompt)
        size += cache_bytes_read(config, F16, [trial.n_depth + end])
    operations += 2 * VOCAB * D * bool(trial.n_prompt)
    tokens = trial.n_prompt + trial.n_gen
    found = trial_work(file, config, F16, trial, ubatch_size=8)
    assert found.bytes == pytest.approx(size / tokens) and found.operations == pytest.approx(operations / tokens)
    assert found.intensity == found.operations / found.bytes


def test_what_a_pass_reads(tmp_path: Path) -> None:
    untied = open_gguf(write_tiny(tmp_path / "llama.gguf", "llama"))
    config = read_config(untied.metadata, vocab_size=VOCAB)
    assert head_weights(config) == VOCAB * D
    one, three = weight_bytes(untied, config), weight_bytes(untied, config, 3)
    assert three - one == 2 * 4 * D  # two more rows of the embedding
    assert one - weight_bytes(untied, config, head=False) == 4 * VOCAB * D
    tied = open_gguf(write_tiny(tmp_path / "qwen2.gguf", "qwen2"))
    config = read_config(tied.metadata, vocab_size=VOCAB)
    assert weight_bytes(tied, config) == weight_bytes(tied, config, 3)
    assert weight_bytes(tied, config) - weight_bytes(tied, config, 3, head=False) == 4 * (VOCAB - 3) * D
    experts = open_gguf(write_tiny(tmp_path / "mixtral.gguf", "mixtral"))
    config = read_config(experts.metadata, vocab_size=VOCAB)
    one, two, many = (weight_bytes(experts, config, n, head=False) for n in (1, 2, 50))
    assert two - one == 4 * (2 * 2 * 3 * D * F + D)  # two tokens may choose all four experts of both layers
    assert many - two == 4 * 48 * D


def test_predictions_for_a_file(builtin_model: Path) -> None:
    file = open_gguf(builtin_model)
    config = read_config(file.metadata, vocab_size=file.tensors["token_embd.weight"].shape[0])
    size = weight_bytes(file, config) + cache_bytes_read(config, F16, [101])
    assert ROOF.predict_decode(None, depth=100) == pytest.approx(30e9 / size)
    work = model_work(builtin_model, Trial(512, 0))
    assert work.intensity > ROOF.ridge and ROOF.predict_prompt(builtin_model) == pytest.approx(300e9 / work.operations)
    assert work.operations > 2 * prompt_weights(file, config)
    assert main_weight_type(file) is TensorType.Q8_0
    with pytest.raises(ResourceError, match="no such file"):
        ROOF.predict_decode("missing.gguf")


def test_the_best_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(ticks))
    calls: list[None] = []
    assert bandwidth.best_seconds(lambda: calls.append(None), 3) == 0.5 and len(calls) == 4
    monkeypatch.setattr(roofline, "best_seconds", lambda call, repeats: call() is None or 0.5)
    for kind in (None, TensorType.Q8_0):
        assert matmul_flops(kind, rows=8, side=32, repeats=3) == 2 * 8 * 32 * 32 / 0.5


@pytest.mark.parametrize("kind", [TensorType.Q8_0, TensorType.Q4_K, TensorType.F16, TensorType.MXFP4])
def test_the_matrix_that_is_timed_is_an_ordinary_one(kind: TensorType) -> None:
    weight = bandwidth.random_weight(kind, 256, jax.devices()[0])
    product = np.asarray(matmul(jnp.eye(16, 256), weight))
    assert product.shape == (16, 256) and np.isfinite(product).all() and np.std(product) > 0


def test_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sizes: plausible orders of magnitude, and the current number of threads."""
    monkeypatch.setattr(roofline, "QUICK_SIZE", 8 << 20)
    found = measure_roofline(kind=TensorType.Q8_0, quick=True)
    assert found.threads == env.thread_limits()[1] and found.arithmetic == "Q8_0"
    assert 1e8 < found.bandwidth < 1e13 and 1e8 < found.flops < 1e15
    assert Roofline(**found.as_dict()) == found
    assert 1e7 < bandwidth.device_bandwidth(size=1 << 20, passes=2) < 1e14


@pytest.mark.skipif(sys.platform != "linux", reason="threads follow the affinity, which only Linux has")
def test_another_number_of_threads_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[object, ...]] = []

    def pretend(*call: object) -> dict[str, object]:
        started.append(call)
        return ROOF.as_dict()

    monkeypatch.setattr(roofline, "call_in_child", pretend)
    other = len(os.sched_getaffinity(0)) + 1
    assert measure_roofline(other, kind=TensorType.Q4_0, quick=True) == ROOF
    assert started == [(roofline.measure_in_child, other, "Q4_0", True)]


def test_what_cannot_be_measured() -> None:
    with pytest.raises(OptionError, match="no matmul for weights of type I32; supported: F32"):
        measure_roofline(kind=TensorType.I32)
    with pytest.raises(OptionError, match="threads is 0"):
        measure_roofline(0)
