"""The built-in storyteller: story generator, training script and shipped files."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import minillama as ml
from minillama.gguf import TensorType, dequantize, open_gguf
from minillama.tokenizer import load_chat_template, load_tokenizer

DATA = Path(__file__).resolve().parents[1] / "data"
sys.path.insert(0, str(DATA))  # scripts that import each other, not a package

import corpus  # noqa: E402
import export  # noqa: E402
import network  # noqa: E402
import optimiser  # noqa: E402
import stories  # noqa: E402
import train  # noqa: E402
from story_plots import PLOTS  # noqa: E402

TINY = network.Shape(
    vocabulary=320, block_count=1, embedding_length=32, feed_forward_length=32, head_count=2, head_count_kv=1,
    context_length=64,
)  # fmt: skip
PLAN = train.TrainingPlan(
    steps=6, rows=2, length=32, long_from=2.0, warmup=2, seed=3, bfloat16=False, measure_every=1000
)
FILES = ("storyteller-q8_0.gguf", "storyteller-f16.gguf")


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.train_tokenizer((), TINY.vocabulary, documents=100)


@pytest.fixture(scope="module", params=FILES)
def shipped(request):
    return open_gguf(DATA / request.param)


# Stories


def test_the_same_seed_gives_the_same_story():
    first, again, other = (stories.write_story(random.Random(seed)).text for seed in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize("plot", PLOTS, ids=[plot.topics[0] for plot in PLOTS])
def test_every_plot_gives_clean_text(plot):
    for seed in range(40):
        text = stories.write_story(random.Random(seed), plot).text
        assert not re.search(r"[{}\[\]|<>]", text), text
        assert all(paragraph.count('"') % 2 == 0 for paragraph in text.split("\n")), text
        assert not re.search(r"  | [.,!?]|\.\.|\b[Aa] [aeio]|(^|[.!?] )[a-z]", text, re.MULTILINE), text
        assert text.isascii()
        assert 300 < len(text) < 2500


def test_plots_and_stories_are_varied():
    texts = [stories.write_story(random.Random(seed)).text for seed in range(300)]
    assert len(PLOTS) >= 20
    assert len(set(texts)) == len(texts)
    assert len({word for text in texts for word in re.findall(r"[a-z]+", text)}) > 700


def test_the_requested_hero_is_in_the_story():
    for seed in range(200):
        story = stories.write_story(random.Random(seed))
        trait_and_kind, kind, named, *_ = story.topics
        for topic in (trait_and_kind, kind, named):
            for word in re.sub(r"^an? |named ", "", topic).split():
                assert word in story.text, (topic, story.text)


def test_a_talk_alternates_and_ends_with_the_storyteller():
    for seed in range(100):
        roles = [message["role"] for message in stories.write_talk(random.Random(seed))]
        roles = roles[1:] if roles[0] == "system" else roles
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_first_words_begin_the_story():
    lengths = set()
    for seed in range(50):
        story = stories.write_story(random.Random(seed))
        begun = stories.first_words(random.Random(seed), story).split()
        assert story.text.split()[: len(begun)] == begun
        lengths.add(len(begun))
    assert min(lengths) == 2 and max(lengths) > 8


def test_topics_come_from_the_story():
    text = "Once there was a little girl named Lily. She had an old red ball and a cat."
    assert corpus.topics(text)[0] == "a little girl named Lily"
    assert all(topic in text for topic in corpus.topics(text))


def test_renaming_is_consistent():
    text = "Tim saw Lily. Lily saw Tim and Timothy."
    new = corpus.rename(text, random.Random(1))
    boy, girl = new.split(" saw ")[0], new.split(" saw ")[1].split(".")[0]
    assert new == f"{boy} saw {girl}. {girl} saw {boy} and Timothy."
    assert boy != "Tim" and girl != "Lily"


def test_missing_texts_are_skipped(tmp_path):
    assert corpus.read_texts(tmp_path) == corpus.Texts((), ())


def test_a_batch_depends_only_on_seed_and_step(tokenizer):
    first, again, other = (corpus.batch(tokenizer, (), 4, 33, 0, step) for step in (5, 5, 6))
    assert first.shape == (4, 33) and first.dtype == np.int32
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first[0, 0] == first[2, 0] == tokenizer.token_to_id(corpus.BEGIN)


# Training


def test_a_few_steps_on_one_batch_lower_its_loss(tokenizer):
    rows = jnp.asarray(corpus.batch(tokenizer, (), 2, 33, 0, 0))
    weights = network.initialise(TINY, 0)
    state = optimiser.initial_state(weights)
    losses = []
    for _ in range(4):
        weights, state, value = train.train_step(weights, state, rows, jnp.float32(0.01), TINY, False)
        losses.append(float(value))
    assert abs(losses[0] - np.log(TINY.vocabulary)) < 0.5
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.3


def test_orthogonal_brings_singular_values_near_one():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32))
    for given in (matrix, matrix.T):
        values = np.linalg.svd(np.asarray(optimiser.orthogonal(given)), compute_uv=False)
        assert (values > 0.6).all() and (values < 1.3).all()


def test_resuming_from_a_checkpoint_equals_an_unbroken_run(tokenizer, tmp_path):
    none = corpus.Texts((), ())
    log = tmp_path / "log.txt"
    whole = train.train(train.new_run(TINY, PLAN), PLAN, TINY, tokenizer, none, tmp_path / "whole.npz", log)
    half = train.train(train.new_run(TINY, PLAN), PLAN, TINY, tokenizer, none, tmp_path / "half.npz", log, until=0.5)
    assert (half.step, whole.step) == (3, 6)
    resumed = train.train(train.restore(tmp_path / "half.npz"), PLAN, TINY, tokenizer, none, tmp_path / "half.npz", log)
    assert resumed.step == 6
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(np.asarray(resumed.weights[name]), np.asarray(weight), err_msg=name)


def test_learning_rate_schedule():
    rates = [train.rate_at(PLAN, 50, done) for done in (0.1, PLAN.decay_from, (1 + PLAN.decay_from) / 2, 1.0)]
    assert rates == pytest.approx([PLAN.rate, PLAN.rate, PLAN.rate / 2, 0.0])
    assert train.rate_at(PLAN, 0, 0.0) == PLAN.rate / PLAN.warmup


@pytest.mark.parametrize("script", ["train.py", "export.py", "stories.py"])
def test_scripts_have_help(script):
    environment = os.environ | {"PYTHONPATH": str(DATA.parent)}
    command = [sys.executable, str(DATA / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "usage:" in done.stdout


# Export


def test_an_exported_file_has_the_trained_weights(tokenizer, tmp_path):
    weights = network.initialise(TINY, 1)
    export.export_all(weights, TINY, tokenizer, tmp_path)
    for name, step in (("f16", 2**-11), ("q8_0", 1 / 127)):
        file = open_gguf(tmp_path / f"storyteller-{name}.gguf")
        assert {key: tensor.shape for key, tensor in file.tensors.items()} == network.tensor_shapes(TINY)
        for key, tensor in file.tensors.items():
            weight = np.asarray(weights[key])
            limit = 0 if weight.ndim == 1 else step * np.abs(weight).max()
            assert np.abs(dequantize(tensor).reshape(weight.shape) - weight).max() <= limit, key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["storyteller-f16.gguf", "storyteller-q8_0.gguf"]


def test_the_engine_computes_the_trained_network(tokenizer, tmp_path):
    weights = network.initialise(TINY, 2)
    path = tmp_path / "tiny-f16.gguf"
    export.export(weights, TINY, tokenizer, path, "f16")
    ids = corpus.batch(tokenizer, (), 1, 24, 0, 0)
    rounded = {name: weight.astype(jnp.float16).astype(jnp.float32) for name, weight in weights.items()}
    expected = np.asarray(network.forward(rounded, jnp.asarray(ids), TINY))[0]
    llm = ml.load(path, cache_type_k="f32", cache_type_v="f32", progress=False)
    found = llm.logits(ids[0].tolist())
    assert np.abs(found - expected).max() < 2e-3 * expected.std()


# The shipped files


def test_shipped_files_are_small():
    assert sum((DATA / name).stat().st_size for name in FILES) <= 8_000_000


def test_shipped_metadata(shipped):
    metadata = shipped.metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "minillama storyteller"
    assert metadata["general.license"] == "mit"
    assert metadata["llama.context_length"] == 512
    assert metadata["tokenizer.ggml.model"] == "gpt2"
    assert metadata["tokenizer.ggml.pre"] == "llama-bpe"
    assert len(metadata["tokenizer.ggml.tokens"]) == shipped.tensors["token_embd.weight"].shape[0] == 2048
    assert "output.weight" not in shipped.tensors


def test_shipped_tensors_fit_every_quantisation(shipped):
    wanted = TensorType.Q8_0 if "q8_0" in shipped.path.name else TensorType.F16
    assert {name: tensor.shape for name, tensor in shipped.tensors.items()} == network.tensor_shapes(network.Shape())
    for tensor in shipped.tensors.values():
        assert tensor.shape[-1] % 256 == 0  # a super-block of the K-quants
        assert tensor.type == (TensorType.F32 if len(tensor.shape) == 1 else wanted)
        assert np.isfinite(dequantize(tensor)).all()


def test_shipped_tokenizer_encodes_any_text(shipped):
    tokenizer = load_tokenizer(shipped.metadata)
    for text in ("Once upon a time", "你好", "🐸 naïve\n\n\ttabs  and  1234567 numbers, isn't it?"):
        ids = tokenizer.encode(text, add_special=False)
        assert b"".join(tokenizer.piece(id) for id in ids).decode() == text
    assert tokenizer.encode("Hi")[0] == tokenizer.bos
    assert {tokenizer.tokens[id] for id in tokenizer.eog} == {corpus.END, corpus.END_OF_TURN}


def test_shipped_chat_template(shipped):
    template = load_chat_template(shipped.metadata)
    text = template.render([{"role": "user", "content": "Tell me a story."}])
    assert text == corpus.render([stories.user("Tell me a story.")], prompt=True)
    ids = load_tokenizer(shipped.metadata).encode(text)
    tokens = [load_tokenizer(shipped.metadata).tokens[id] for id in ids]
    assert tokens.count(corpus.BEGIN) == 1
    assert [token for token in tokens if token.startswith("<|")][1:] == ["<|user|>", "<|end|>", "<|assistant|>"]


def test_shipped_formats_agree():
    exact, rounded = (open_gguf(DATA / name) for name in reversed(FILES))
    for name, tensor in exact.tensors.items():
        weight = dequantize(tensor)
        assert np.abs(dequantize(rounded.tensors[name]) - weight).max() <= 0.01 * np.abs(weight).max()


def test_held_out_text_is_plain_and_long_enough():
    text = (DATA / "heldout.txt").read_text(encoding="utf-8")
    assert text.isascii()
    assert 12_000 < len(text) < 20_000
    assert len(text.split("\n\n")) == 25
