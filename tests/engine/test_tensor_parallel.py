"""Models spread over several devices compute what one device computes, and exchange no more than they must."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import jax
import numpy as np
import pytest
from device_processes import Check
from gguf import GGMLQuantizationType as Type
from scaled_models import write_scaled
from tiny_models import LAYERS, VARIANTS, write_tiny

import minillama as ml
from minillama.engine import text_cache
from minillama.errors import OptionError
from minillama.measure.quality.multiple_choice import running_choices
from minillama.measure.quality.perplexity import running_perplexity
from minillama.measure.quality.task_files import Task
from minillama.parallel.sharding.head_assignment import assign_heads

EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}
IDS = [5, 17, 250, 3, 99, 41, 7, 8, 120]
QUICK = ("llama", "qwen2moe")
COLLECTIVE = re.compile(
    r" (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|collective-broadcast)(?:-start)?\("
)


def load(path: Path, devices: int = 1, ctx_size: int = 0) -> ml.LLM:
    return ml.load(path, tensor_parallel=devices, ctx_size=ctx_size, progress=False, **EXACT)


def some_variants(names: Sequence[str]) -> list[object]:
    """All variants, those that are not named as slow ones."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in VARIANTS]


def check_same(path: Path, counts: Sequence[int], rounded: bool = False) -> None:
    """Logits and greedy tokens of several devices are those of one.

    rounded: to 8 bits, as kernels do with what they multiply quantised weights by; now and then a sum in another order
    falls to the other side, of a number in some position. So the tokens may differ from where two are nearly as likely.
    """
    one = load(path)
    logits, tokens = one.logits(IDS), one.generate(IDS, n=12, temp=0, ignore_eos=True).tokens
    for count in counts:
        spread = load(path, count)
        assert len(spread.backend.devices) == count
        differences = np.abs(spread.logits(IDS) - logits).max(axis=1) / logits.std()
        assert differences.max() < (0.1 if rounded else 1e-3), differences
        assert np.median(differences) < 1e-3, differences
        found = spread.generate(IDS, n=12, temp=0, ignore_eos=True).tokens
        assert nearly_the_same(one, tokens, found) if rounded else found == tokens


def nearly_the_same(llm: ml.LLM, tokens: Sequence[int], others: Sequence[int]) -> bool:
    """Whether two texts first differ where the two best logits lie closer than rounding moves them, or nowhere."""
    differs = [here != there for here, there in zip(tokens, others, strict=True)]
    if not any(differs):
        return True
    logits = llm.logits([*IDS, *tokens[: differs.index(True)]])
    second, first = np.sort(logits[-1])[-2:]
    return bool(first - second < 0.1 * logits.std())


class TestSameNumbers:
    @pytest.mark.parametrize("name", some_variants(QUICK))
    def test_of_every_variant(self, apart: Check, tmp_path: Path, name: str) -> None:
        apart(check_same, write_tiny(tmp_path / "m.gguf", name), (2, 4))

    @pytest.mark.parametrize("name", some_variants(()))
    def test_of_quantised_weights(self, apart: Check, tmp_path: Path, name: str) -> None:
        whole = VARIANTS[name].key_length == 32  # one block of columns for each of four heads
        apart(check_same, write_tiny(tmp_path / "m.gguf", name, Type.Q8_0), (2, 4) if whole else (2,), True)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["qwen2moe", "phi3"])
    def test_scales_of_matrices(self, apart: Check, tmp_path: Path, name: str) -> None:
        apart(check_same, write_scaled(tmp_path, name)[0], (2,))

    @pytest.mark.parametrize("name", some_variants(()))
    def test_where_xla_multiplies(self, without_kernels: Check, tmp_path: Path, name: str) -> None:
        without_kernels(check_same, write_tiny(tmp_path / "m.gguf", name), (2, 4))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["qwen3", "qwen3moe"])
    def test_of_quantised_weights_where_xla_multiplies(self, without_kernels: Check, tmp_path: Path, name: str) -> None:
        without_kernels(check_same, write_tiny(tmp_path / "m.gguf", name, Type.Q8_0), (2,))

    @pytest.mark.parametrize(
        ("name", "kind", "feed", "vocab", "counts"),
        [
            pytest.param("llama", Type.Q8_0, 96, 301, (2,), id="three blocks for two"),
            pytest.param("phi3", Type.F32, 90, 301, (2, 4), id="90 rows for four", marks=pytest.mark.slow),
            pytest.param("qwen2moe", Type.Q8_0, 96, 301, (2,), id="experts", marks=pytest.mark.slow),
            pytest.param("qwen3", Type.Q8_0, 32, 301, (2, 4), id="one block for four", marks=pytest.mark.slow),
        ],
    )
    def test_of_widths_that_do_not_divide(
        self, apart: Check, tmp_path: Path, name: str, kind: Type, feed: int, vocab: int, counts: tuple[int, ...]
    ) -> None:
        apart(
            check_same,
            write_tiny(tmp_path / "m.gguf", name, kind, feed=feed, vocab=vocab),
            counts,
            kind is not Type.F32,
        )

    @pytest.mark.slow
    def test_of_widths_that_do_not_divide_where_xla_multiplies(self, without_kernels: Check, tmp_path: Path) -> None:
        for name in ("llama", "qwen2moe", "phi3"):
            path = write_tiny(tmp_path / f"{name}.gguf", name, Type.Q8_0, feed=96, vocab=301)
            without_kernels(check_same, path, (2,))
            without_kernels(check_same, write_tiny(tmp_path / f"{name}-f32.gguf", name, feed=90, vocab=301), (2, 4))


def check_builtin(path: Path, count: int) -> None:
    """Texts and chats of the storyteller, as it is, and with all samplers in F16.

    In Q8_0 the kernels round what they multiply weights by to 8 bits, and a sum in another order may fall to the other
    side: log-probabilities then move by hundredths, as much as it takes to draw another token.
    """
    chat = [{"role": "user", "content": "Tell me a story about a fox."}]
    for file in (path, path.with_name("storyteller-f16.gguf")):
        one, spread = load(file), load(file, count)
        assert spread.chat(chat, n=24, temp=0).tokens == one.chat(chat, n=24, temp=0).tokens
        expected, found = (llm.generate("Once upon a time", n=40, temp=0) for llm in (one, spread))
        assert (found.tokens, found.text, found.reason) == (expected.tokens, expected.text, expected.reason)
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=0.05 if file == path else 1e-4)
    never = ((5, 2.0), (7, -float("inf")))
    for options in (
        {"temp": 0.8, "seed": 3},
        {"temp": 1.0, "seed": 5, "repeat_penalty": 1.3, "logit_bias": never},
        {"temp": 0.9, "seed": 1, "top_k": 0},
        {"temp": 0.8, "seed": 2, "dry_multiplier": 0.8},
        {"seed": 4, "mirostat": 2},
    ):
        expected = one.generate("Once upon a time", n=40, **options)
        found = spread.generate("Once upon a time", n=40, **options)
        assert (found.tokens, found.text, found.reason) == (expected.tokens, expected.text, expected.reason), options
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_the_built_in_model_writes_the_same(apart: Check, builtin_model: Path, count: int) -> None:
    apart(check_builtin, builtin_model, count)


def check_calls(path: Path, count: int) -> None:
    """Everything else that a backend is called for: growing, sessions, drafts, perplexity, choices."""
    one, spread = load(path, 1, 512), load(path, count, 512)
    prompt = [1, *range(20, 32), *range(20, 32)]
    with patch.object(text_cache, "FIRST_CAPACITY", 32):
        options = {"n": 40, "temp": 0.0, "ignore_eos": True}
        expected = one.generate(prompt, **options)
        kept = spread.session()
        assert kept.capacity == 32
        assert spread.generate(prompt, session=kept, **options).tokens == expected.tokens
        assert kept.capacity >= 64 and kept.nbytes == one_of_size(one, kept.capacity, count)
        longer = [*prompt, *expected.tokens, 9, 10]
        again = spread.generate(longer, session=kept, **options)
        assert again.timings.prompt_tokens == 3
        assert again.tokens == one.generate(longer, **options).tokens
    drafted = spread.generate(prompt, lookup=True, **options)
    assert drafted.tokens == expected.tokens and drafted.timings.drafted_tokens > 0
    ids = np.random.default_rng(0).integers(3, 300, 140).tolist()
    found, wanted = (list(running_perplexity(llm, ids, ctx_size=32)) for llm in (spread, one))
    assert len(found) == 4
    for here, there in zip(found, wanted, strict=True):
        assert here.ppl == pytest.approx(there.ppl, rel=1e-5)
    tasks = [
        Task(("the hen sat on the", "the hen ran", "the hen in the end"), frozenset({1})),
        Task(("in the sand", "in the other one and the other"), frozenset({0})),
    ]
    chosen, expected_answers = (list(running_choices(llm, tasks)) for llm in (spread, one))
    for here, there in zip(chosen, expected_answers, strict=True):
        assert here.chosen == there.chosen
        np.testing.assert_allclose(here.scores, there.scores, rtol=1e-5)


def one_of_size(llm: ml.LLM, capacity: int, devices: int) -> int:
    """Bytes of a cache in one piece, with so many positions; each head as often as devices hold it."""
    kept, length = llm.session(), np.dtype(np.int32).itemsize
    kept.reserve(capacity)
    return (kept.nbytes - length) * assign_heads(llm.config.attention, devices).kv_replicas + length


def test_every_call_gives_the_same(apart: Check, tmp_path: Path) -> None:
    apart(check_calls, write_tiny(tmp_path / "m.gguf", "llama"), 2)


@pytest.mark.slow
def test_every_call_gives_the_same_elsewhere(apart: Check, without_kernels: Check, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.gguf", "mixtral")
    apart(check_calls, path, 4)
    without_kernels(check_calls, path, 4)


@pytest.mark.parametrize("name", ["nemotron_h", "lfm2moe"])
def test_so_do_recurrent_layers(apart: Check, tmp_path: Path, name: str) -> None:
    apart(check_calls, write_tiny(tmp_path / "m.gguf", name), 2)


def bytes_of_recurrent_layer(path: Path, count: int) -> dict[str, int]:
    """Bytes that the first device holds of the first layer's mixer and of its state."""
    llm = load(path, count)
    block, layers = llm.backend.params.blocks[0], llm.session()._cache.handle.layers
    fields = {name: getattr(block, name) for name in ("ssm_in", "ssm_conv1d", "ssm_a", "ssm_norm", "ssm_out")}
    return {name: held_by_first(tree) for name, tree in {**fields, "state": layers[0]}.items()}


def held_by_first(tree: object) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_a_device_holds_its_part_of_a_recurrent_layer(without_kernels: Check, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.gguf", "granitehybrid")  # four heads in two groups
    whole, half, quarter = (without_kernels(bytes_of_recurrent_layer, path, count) for count in (1, 2, 4))
    assert half == {name: size // 2 for name, size in whole.items()}
    again = {"ssm_in": 32 * 4 * 64, "ssm_conv1d": 32 * 4 * 4, "state": 32 * 4 * 3}  # b and c: 32 channels of float32
    assert quarter == {name: (size + again.get(name, 0)) // 4 for name, size in whole.items()}


def exchanges(path: Path, count: int, options: dict[str, float]) -> list[str]:
    """The collectives in the program of a step, as XLA has compiled it."""
    from minillama.engine.backends.programs import text_programs
    from minillama.engine.backends.programs.program import Program
    from minillama.engine.backends.tensor_parallel import TensorParallelBackend

    llm = load(path, count)
    compiled: list[str] = []
    call = TensorParallelBackend.call

    def watched(self: TensorParallelBackend, program: Program, *args: object) -> object:
        if program is text_programs.generate:
            leaves, structure = jax.tree.flatten(args)  # `lower` would rebuild trees with leaves that are no arrays
            whole = jax.jit(lambda leaves: call(self, program, *jax.tree.unflatten(structure, leaves)))
            compiled.append(whole.lower(leaves).compile().as_text())
        return call(self, program, *args)

    with patch.object(TensorParallelBackend, "call", watched):
        llm.generate(IDS, n=2, ignore_eos=True, **options)
    return COLLECTIVE.findall(compiled[0])


def check_exchanges(path: Path, extra: int) -> None:
    for count in (2, 4):
        assert exchanges(path, count, {"temp": 0.0}) == ["all-gather"] * (2 * LAYERS + 1 + extra)


def test_a_step_exchanges_twice_a_layer_and_once_for_the_token(apart: Check, tmp_path: Path) -> None:
    apart(check_exchanges, write_tiny(tmp_path / "m.gguf", "llama"), 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "qwen2moe", "glm4", "gemma2"])
def test_so_does_one_of_other_models(apart: Check, tmp_path: Path, name: str) -> None:
    apart(check_exchanges, write_tiny(tmp_path / "m.gguf", name), 0)


@pytest.mark.slow
def test_a_table_in_pieces_takes_one_more(without_kernels: Check, tmp_path: Path) -> None:
    without_kernels(check_exchanges, write_tiny(tmp_path / "m.gguf", "llama"), 1)


def warnings_of(path: Path, count: int) -> list[str]:
    """What is said while a model is opened."""
    logger, said = logging.getLogger("minillama"), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        load(path, count)
    finally:
        logger.removeHandler(handler)
    return said


def test_heads_that_several_devices_hold_are_said_aloud(apart: Check, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.gguf", "llama")
    line = "2 key/value heads for 4 devices: each head and its part of the cache is on 2 devices"
    assert [text for text in apart(warnings_of, path, 4) if "heads" in text] == [line]
    assert not [text for text in apart(warnings_of, path, 2) if "heads" in text]


@pytest.mark.parametrize(
    ("name", "kind", "count", "message"),
    [
        (
            "llama",
            Type.F32,
            3,
            r"^4 query heads over 2 key/value heads do not divide among 3 devices; use 1, 2, 4 devices, "
            r"or split_mode=layer$",
        ),
        (
            "llama",
            Type.F32,
            8,
            r"^tensor_parallel=8, but JAX sees 4 CPU devices; use fewer, or env\.prepare\(cpu_devices=\.\.\.\)",
        ),
        ("llama", Type.F32, -1, r"^tensor_parallel is -1; expected a number of devices, or 0 for all$"),
        (
            "llama",
            Type.Q8_0,
            4,
            r"^blk\.0\.attn_output\.weight: a share of 16 columns is no whole number of Q8_0 blocks of 32, "
            r"so 4 devices are too many; use fewer, or split_mode=layer$",
        ),
    ],
)
def test_what_does_not_divide_is_refused(
    apart: Check, tmp_path: Path, name: str, kind: Type, count: int, message: str
) -> None:
    path = write_tiny(tmp_path / "m.gguf", name, kind)
    with pytest.raises(OptionError, match=message):
        apart(load, path, count)


def check_looks_inside(path: Path) -> None:
    llm = load(path, 2)
    for look in (lambda: llm.trace([1, 2]), lambda: llm.params):
        with pytest.raises(OptionError, match="needs all weights on one device; load without workers"):
            look()


def test_what_looks_inside_says_that_it_cannot(apart: Check, tmp_path: Path) -> None:
    apart(check_looks_inside, write_tiny(tmp_path / "m.gguf", "llama"))
