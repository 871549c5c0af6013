"""Perplexity: batched passes equal a reference implementation and llama-perplexity's numbers."""

import json
import logging
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from device_processes import Check
from tiny_models import VOCAB, write_tiny

import minillama as ml
from minillama.engine.backends import chunked_logits as scores_module
from minillama.engine.backends.chunked_logits import negative_log_likelihood, over_positions, tile_rows
from minillama.engine.batches import Batches
from minillama.errors import OptionError, UnsupportedError
from minillama.measure.quality.multiple_choice import running_choices
from minillama.measure.quality.perplexity import Estimate, perplexity, running_perplexity
from minillama.measure.quality.task_files import Task
from minillama.measure.quality.text_windows import chunked, hidden_states

EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}
IDS = np.random.default_rng(0).integers(3, VOCAB, 330).tolist()


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama"), progress=False, **EXACT)


def nll_of(llm: ml.LLM, window: list[int], scored: int) -> list[float]:
    """The surprise at the last `scored` tokens of a window, from whole logits in float64."""
    read = window if llm.tokenizer.bos is None or not llm.tokenizer.add_bos else [llm.tokenizer.bos, *window[1:]]
    logits = llm.logits(read).astype(np.float64)
    places = range(len(window) - scored, len(window))
    return [float(np.log(np.exp(logits[at - 1]).sum()) - logits[at - 1, window[at]]) for at in places]


def slowly(llm: ml.LLM, cut: list[list[int]], scored: int) -> list[tuple[float, float, int]]:
    """PPL, its error and the number of tokens after each window."""
    nll, found = [], []
    for window in cut:
        nll += nll_of(llm, window, scored)
        ppl = math.exp(np.mean(nll))
        found.append((ppl, ppl * np.std(nll) / math.sqrt(max(1, len(nll) - 1)), len(nll)))
    return found


def check(estimates: list[Estimate], expected: list[tuple[float, float, int]]) -> None:
    assert [(e.chunk, e.chunks) for e in estimates] == [(i + 1, len(expected)) for i in range(len(expected))]
    for estimate, (ppl, error, count) in zip(estimates, expected, strict=True):
        assert (estimate.ppl, estimate.error) == (pytest.approx(ppl, rel=1e-5), pytest.approx(error, rel=1e-4))
        assert estimate.count == count
        assert math.exp(estimate.nll) == pytest.approx(estimate.ppl)
        assert estimate.nll_error == pytest.approx(estimate.error / estimate.ppl)
    assert all(a.seconds <= b.seconds for a, b in pairwise(estimates))


@pytest.mark.parametrize(
    ("ctx_size", "ubatch_size"),
    [(32, 512), (41, 123), (40, 16), (4, 512)],
    ids=["all windows in one pass", "a last pass that is not full", "windows in pieces", "the least"],
)
def test_passes_equal_whole_windows(llm: ml.LLM, ctx_size: int, ubatch_size: int) -> None:
    llm = replace(llm, batches=Batches(512, ubatch_size))
    ids = IDS[: 10 * ctx_size + 3]
    cut = [ids[start : start + ctx_size] for start in range(0, len(ids) - ctx_size + 1, ctx_size)]
    estimates = list(running_perplexity(llm, ids, ctx_size=ctx_size))
    check(estimates, slowly(llm, cut, ctx_size - 1 - ctx_size // 2))


@pytest.mark.parametrize("stride", [1, 24, 32])
def test_strided_windows_overlap(llm: ml.LLM, stride: int) -> None:
    size, ids = 32 + stride // 2, IDS[:130]
    chunks = 5 if stride == 1 else None
    starts = list(range(0, len(ids) - size, stride))[:chunks]
    estimates = list(running_perplexity(llm, ids, ctx_size=32, stride=stride, chunks=chunks))
    check(estimates, slowly(llm, [ids[start : start + size] for start in starts], stride))


def test_the_first_token_gives_way_to_bos_only_where_the_model_wants_it(llm: ml.LLM) -> None:
    ids, other = IDS[:64], [IDS[0] + 1, *IDS[1:64]]
    plain = replace(llm, tokenizer=replace(llm.tokenizer, add_bos=False))
    for model, same in ((llm, True), (plain, False)):
        one, two = (list(running_perplexity(model, text, ctx_size=32, chunks=1))[-1].ppl for text in (ids, other))
        assert (one == two) is same
    check(list(running_perplexity(plain, ids, ctx_size=32)), slowly(plain, [ids[:32], ids[32:]], 15))


def test_logits_are_never_all_in_memory(llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tile_rows(255, 128_256) == 128 and tile_rows(255, 512) == 256 and tile_rows(1, 512) == 32
    whole = list(running_perplexity(llm, IDS, ctx_size=66))
    monkeypatch.setattr(scores_module, "LOGIT_BYTES", 32 * 4 * VOCAB)
    (piece,) = hidden_states(llm, chunked(llm, IDS, 66, 1))
    shapes = []

    def reduce(logits: jnp.ndarray, wanted: jnp.ndarray) -> jnp.ndarray:
        shapes.append(logits.shape)
        return negative_log_likelihood(logits, wanted)

    targets = jnp.asarray(piece.of(chunked(llm, IDS, 66).targets))
    hidden, targets = (jnp.concatenate([array] * 3) for array in (piece.hidden, targets))
    nll = over_positions(reduce, llm.params, llm.config, hidden, targets)
    assert set(shapes) == {(32, VOCAB)} and nll.shape == (3, 32)
    assert math.exp(float(nll[2].mean())) == pytest.approx(whole[0].ppl, rel=1e-5)


def test_a_text_is_tokenised(llm: ml.LLM) -> None:
    text = "the ant sat on the north end " * 12
    *_, last = running_perplexity(llm, llm.tokenizer.encode(text), ctx_size=32, chunks=3)
    found = perplexity(llm, text, ctx_size=32, chunks=3)
    assert (found.ppl, found.error, found.chunk) == (last.ppl, last.error, 3)


def test_it_stops_where_asked_to(llm: ml.LLM) -> None:
    llm = replace(llm, batches=Batches(32, 32))
    seen: list[Estimate] = []
    for estimate in running_perplexity(llm, IDS, ctx_size=32, stop=lambda: len(seen) == 2):
        seen.append(estimate)
    assert [e.chunk for e in seen] == [1, 2] and seen[0].chunks == 10


def test_refusals(llm: ml.LLM, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OptionError, match=r"need at least 128 tokens .* context of 64; the text has only 127"):
        running_perplexity(llm, IDS[:127], ctx_size=64)
    with pytest.raises(OptionError, match="chunks is 0"):
        running_perplexity(llm, IDS, ctx_size=64, chunks=0)
    with pytest.raises(OptionError, match="ctx_size is 3"):
        running_perplexity(llm, IDS, ctx_size=3)
    with pytest.raises(OptionError, match="windows of 1024 tokens, but a context of 512"):
        running_perplexity(llm, IDS, ctx_size=1024)
    with pytest.raises(OptionError, match="the stride is 65"):
        running_perplexity(llm, IDS, ctx_size=64, stride=65)
    with pytest.raises(OptionError, match="the stride is -1"):
        running_perplexity(llm, IDS, ctx_size=64, stride=-1)
    with pytest.raises(OptionError, match="token id 300 is outside"):
        running_perplexity(llm, [300] * 128, ctx_size=64)
    ends = replace(llm, tokenizer=replace(llm.tokenizer, add_eos=True))
    with pytest.raises(UnsupportedError, match="appends EOS to every text"):
        running_perplexity(ends, IDS, ctx_size=64)
    short = replace(llm, backend=replace(llm.local, config=replace(llm.config, context_length=100)))
    with caplog.at_level(logging.WARNING):
        running_perplexity(short, IDS, ctx_size=128)
    assert "trained on only 100 context tokens (128 specified)" in caplog.text


def expectations() -> list[tuple[str, int]]:
    """Models and windows."""
    found = [(name, size) for name in ("", "-F16", "-Q8_0", "-Q4_0") for size in (128, 256, 512)]
    return [pytest.param(*case, marks=() if case[1] == 128 else pytest.mark.slow) for case in found]


def perplexity_of_file(path: Path, text: str, ctx_size: int, chunks: int) -> Estimate:
    llm = ml.load(path, ctx_size=ctx_size, progress=False, **EXACT)
    return perplexity(llm, text, ctx_size=ctx_size, chunks=chunks)


@pytest.mark.parametrize(("name", "ctx_size"), expectations())
def test_llama_cpp_finds_the_same(rounded_to_8_bits: Check, reference: Path, name: str, ctx_size: int) -> None:
    """Exactly where nothing is rounded; llama.cpp rounds activations in another way before quantised products."""
    file = f"stories260K{name}.gguf"
    facts = json.loads((reference / "real" / "expected.json").read_text())["perplexity"]
    (fact,) = [fact for fact in facts if fact["model"] == file and fact["n_ctx"] == ctx_size]
    given = reference / "real" / file, (reference / fact["text"]).read_text(), ctx_size, fact["chunks"]
    if name in ("", "-F16"):
        found = perplexity_of_file(*given)
        assert found.ppl == pytest.approx(fact["ppl"], rel=1e-3)
        assert found.error == pytest.approx(fact["error"], abs=2e-5)
    else:
        found = rounded_to_8_bits(perplexity_of_file, *given)
        assert abs(found.ppl - fact["ppl"]) < 0.1 * fact["error"]
        assert found.error == pytest.approx(fact["error"], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "cache"), [("gemma2", "f32"), ("qwen2moe", "f32"), ("chatglm", "f16"), ("qwen3", "q8_0")]
)
def test_windows_side_by_side_know_nothing_of_each_other(tmp_path: Path, name: str, cache: str) -> None:
    path = write_tiny(tmp_path / "m.gguf", name)
    llm = ml.load(path, cache_type_k=cache, cache_type_v=cache, progress=False)
    together, alone = (
        [e.ppl for e in running_perplexity(replace(llm, batches=Batches(512, size)), IDS[:200], ctx_size=40)]
        for size in (160, 40)
    )
    assert len(alone) == 5 and together == pytest.approx(alone, rel=1e-6)


def test_layers_on_two_devices_find_the_same(llm: ml.LLM) -> None:
    """In a child process, because JAX fixes its devices at its start."""
    program = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 2)
import minillama as ml
from minillama.engine.backends import choose as module
from minillama.engine.loading.layer_placement import split_layers
from minillama.measure.quality.multiple_choice import running_choices
from minillama.measure.quality.perplexity import perplexity
from minillama.measure.quality.task_files import Task
module.place_layers = lambda layers, n, *_: split_layers(layers, 2, jax.devices()[0], jax.devices()[1:])
llm = ml.load(sys.argv[1], progress=False, cache_type_k="f32", cache_type_v="f32")
assert llm.backend.placement.single is None
print(perplexity(llm, sys.argv[2], ctx_size=32).ppl)
*_, answer = running_choices(llm, [Task((sys.argv[3], sys.argv[4]), frozenset({0}))] * 2)
print(*answer.scores)
"""
    text, texts = "the ant sat on the north end " * 12, ("the ant sat", "the ant ran on")
    split = subprocess.run(
        [sys.executable, "-c", program, str(llm.path), text, *texts], capture_output=True, text=True, check=True
    ).stdout.split()
    (answer,) = running_choices(llm, [Task(texts, frozenset({0}))])
    whole = perplexity(llm, text, ctx_size=32).ppl, *answer.scores
    assert [float(number) for number in split] == pytest.approx(whole, rel=1e-6)
