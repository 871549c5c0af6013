"""A GPU or TPU computes the processor's numbers: `-m gpu` on one, `-m slow` for the checks themselves.

Each check runs in a process that has the device. Without an accelerator it is the second of its virtual processors, so
the checks run in CI as well. Bounds are for both; no accelerator has confirmed them yet.
"""

import gc
from pathlib import Path

import jax
import numpy as np
import pytest
from device_processes import Check
from device_under_test import (
    CONTEXT,
    EXACT,
    LAYERS,
    device_under_test,
    equal_but_for_ties,
    open_on_device,
    platform,
    reference_logits,
    write_model,
)

import minillama as ml
from minillama.engine.backends.pipeline import PipelineBackend
from minillama.engine.batching.slot_executor import SlotExecutor
from minillama.engine.memory_usage import memory_usage
from minillama.measure.device.device_agreement import TYPES, largest_difference, precision, seeded_tokens
from minillama.sampling import Sampling

IDS = [5, 17, 250, 3, 99, 41, 7, 8, 120, 300, 12, 64]
BOUNDS = {"default": 0.05, "highest": 1e-3}  # of logits, in standard deviations; TF32 has 10 bits
MARGIN = 1e-3  # between two logits that another order of additions may exchange
SPARE = 64 << 20  # bytes of programs and constants that no formula counts


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: write_model(folder / f"{kind}.gguf", kind) for kind in TYPES}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("kind", TYPES)
def test_logits(on_device: Check, models: dict[str, Path], kind: str, name: str) -> None:
    on_device(check_logits, models[kind], name)


def check_logits(path: Path, name: str) -> None:
    with precision(name):
        llm = open_on_device(path, **EXACT)
        assert llm.backend.devices == (device_under_test(),)
        assert largest_difference(llm.logits(IDS), reference_logits(path, IDS)) < BOUNDS[name]


@pytest.mark.parametrize("kind", TYPES)
def test_a_seeded_text(on_device: Check, models: dict[str, Path], kind: str) -> None:
    on_device(check_text, models[kind])


def check_text(path: Path) -> None:
    with precision("highest"):
        texts = [seeded_tokens(open_on_device(path, layers), IDS) for layers in (None, 0)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 4


@pytest.mark.parametrize("kind", ["Q4_K_M", "F16"])
def test_eight_texts_at_once(on_device: Check, models: dict[str, Path], kind: str) -> None:
    on_device(check_batch, models[kind])


def check_batch(path: Path) -> None:
    """Each text is that of a lone prompt; products of eight rows add in another order."""
    with precision("highest"):
        llm = open_on_device(path, ctx_size=256)
        prompts = [np.random.default_rng(seed).integers(3, 500, 5 + seed).tolist() for seed in range(8)]
        options = {"n": 12, "temp": 0.0, "ignore_eos": True}
        together = llm.generate_many(prompts, slots=8, **options)
        for prompt, found in zip(prompts, together, strict=True):
            lone = llm.generate(prompt, **options)
            assert equal_but_for_ties(llm, prompt, list(lone.tokens), list(found.tokens), MARGIN)


def test_a_saved_text_goes_on(on_device: Check, models: dict[str, Path]) -> None:
    on_device(check_saved, models["Q8_0"])


def check_saved(path: Path) -> None:
    """A slot, copied to the host's memory and back into another slot, samples the same tokens."""
    llm = open_on_device(path, ctx_size=256)
    executor = SlotExecutor(llm.backend, 2, 128, 32, llm.cache_types)
    chain = llm.backend.chain(Sampling(temp=0.9))
    executor.prefill(0, 0, IDS[:-1])
    saved = executor.save(0, len(IDS) - 1)
    executor.load(1, saved)
    for slot in (0, 1):
        executor.join(slot, chain, 3, IDS)
    tokens = []
    for step in range(6):
        draw = executor.step([0, 1], [len(IDS) - 1 + step] * 2)
        tokens.append([sampled.token for sampled in executor.read(draw)])
    assert all(one == other for one, other in tokens) and len({one for one, _ in tokens}) > 2
    executor.load(1, saved.with_arrays([np.zeros_like(array) for array in saved.arrays]))
    executor.join(1, chain, 3, IDS)
    _, other = executor.read(executor.step([0, 1], [len(IDS) + 5, len(IDS) - 1]))
    assert other.token != tokens[0][0], "the saved arrays are read"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M"])
def test_half_of_the_layers_on_the_device(on_device: Check, models: dict[str, Path], kind: str) -> None:
    on_device(check_half, models[kind])


def check_half(path: Path) -> None:
    """Partial offload, -ngl: the numbers and the text of the processor."""
    with precision("highest"):
        processor, half = open_on_device(path, 0, **EXACT), open_on_device(path, 1 + LAYERS // 2, **EXACT)
        assert isinstance(half.backend, PipelineBackend)
        held = [next(iter(block.attn_norm.devices())) for block in half.backend.params.blocks]
        host = jax.devices("cpu")[0]
        assert held == [host] * (LAYERS // 2) + [device_under_test()] * (LAYERS // 2)
        assert largest_difference(half.logits(IDS), processor.logits(IDS)) < BOUNDS["highest"]
        assert seeded_tokens(half, IDS) == seeded_tokens(processor, IDS)


def test_beyond_the_first_capacity(on_device: Check, models: dict[str, Path]) -> None:
    on_device(check_long, models["F16"])


def check_long(path: Path) -> None:
    """Logits after more tokens than the cache has room for at first."""
    with precision("highest"):
        llm = open_on_device(path, **EXACT)
        session = llm.session()
        count = min(session.capacity + 40, CONTEXT)
        ids = np.random.default_rng(0).integers(3, 500, count).tolist()
        *_, _ = session.prefill(ids[:-1])
        found = np.asarray(session.decode(ids[-1]))
    assert session.capacity >= count
    assert largest_difference(found, reference_logits(path, ids)[-1:]) < BOUNDS["highest"]


@pytest.mark.parametrize("kind", TYPES)
def test_memory_is_predicted(on_device: Check, models: dict[str, Path], kind: str) -> None:
    on_device(check_memory, models[kind])


def check_memory(path: Path) -> None:
    """Weights, cache and temporaries against the formulas, and their sum against what the device has handed out."""
    before = in_use()
    llm = open_on_device(path)
    session = llm.session()
    session.reserve(CONTEXT)
    usage = memory_usage(llm.local, session, llm.batches, llm.cache_types, llm.memory.weights)
    assert 0.9 * llm.memory.weights < usage.weights_held < 1.1 * llm.memory.weights
    assert usage.cache <= usage.cache_held <= usage.cache + 4096 and usage.cache_held <= llm.memory.cache + 4096
    assert usage.compute_held is not None and usage.compute_held <= 1.5 * llm.memory.compute
    if platform() != "cpu":
        assert usage.weights_held + usage.cache_held <= in_use() - before <= llm.memory.total + SPARE


def in_use() -> int:
    """Bytes that the device has handed out, 0 where it does not count them."""
    gc.collect()  # models of earlier checks
    return (device_under_test().memory_stats() or {}).get("bytes_in_use", 0)


def test_a_second_process(on_device: Check, second_process: Check, models: dict[str, Path]) -> None:
    """Two notebooks on one device: both hold a model, and each computes the text of the other."""
    expected = on_device(hold_and_generate, models["Q4_0"])
    assert second_process(hold_and_generate, models["Q4_0"]) == expected
    assert on_device(generate_again) == expected


HELD: list[ml.LLM] = []  # in the processes of the checks


def hold_and_generate(path: Path) -> tuple[int, ...]:
    HELD[:] = [open_on_device(path)]
    return generate_again()


def generate_again() -> tuple[int, ...]:
    return seeded_tokens(HELD[0], IDS)
