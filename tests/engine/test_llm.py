"""The engine on tiny models: streamed = generated, bucketed = whole, sessions, stops, full contexts, refusals."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VARIANTS, VOCAB, write_tiny

import minillama as ml
from minillama.engine import session, text_cache
from minillama.engine.generation.sampling_defaults import file_defaults
from minillama.engine.generation.stop_strings import StopStrings
from minillama.engine.loading import memory_budget
from minillama.engine.loading.layer_placement import place_layers
from minillama.engine.result import Reason, State

PROMPT = "the ant sat on the north end "
EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}  # where two ways of computing are to agree closely


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama")
    return ml.load(path, chat_template="chatml", progress=False, **EXACT)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_generated_is_streamed_is_recomputed(tmp_path: Path, name: str) -> None:
    """On every architecture: prefill in a padded bucket plus cached steps equal the whole forward pass each time."""
    llm = ml.load(write_tiny(tmp_path / "m.gguf", name), progress=False, **EXACT)
    ids = llm.tokenizer.encode(PROMPT)
    generated = llm.generate(PROMPT, n=6, temp=0, ignore_eos=True)
    pieces = list(llm.stream(PROMPT, n=6, temp=0, ignore_eos=True))
    assert [piece.token for piece in pieces] == list(generated.tokens)
    assert "".join(piece.text for piece in pieces) == generated.text
    never = np.where(np.isin(np.arange(llm.config.vocab_size), list(llm.tokenizer.eog)), -np.inf, 0)
    whole = llm.logits(ids + list(generated.tokens))[len(ids) - 1 :]
    for i, (token, logits) in enumerate(zip(generated.tokens, whole, strict=False)):
        assert token == (logits + never).argmax()
        exact = logits.astype(np.float64)
        assert generated.logprobs[i] == pytest.approx(
            exact[token] - np.log(np.exp(exact - exact.max()).sum()) - exact.max(), abs=1e-3
        )


def test_the_prompt_may_be_read_in_chunks_of_any_size(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.gguf", "gemma2")
    ids = np.random.default_rng(0).integers(3, 300, 150).tolist()
    texts = {
        size: ml.load(path, ubatch_size=size, progress=False, **EXACT).generate(ids, n=8, temp=0).tokens
        for size in (16, 37, 512)
    }
    assert texts[16] == texts[37] == texts[512]


def test_logits_do_not_depend_on_the_chunk(llm: ml.LLM) -> None:
    ids = np.random.default_rng(1).integers(3, 300, 70).tolist()
    whole = llm.logits(ids)
    pieces = ml.load(llm.path, ubatch_size=16, progress=False, **EXACT).logits(ids)
    assert whole.shape == (70, 300)
    np.testing.assert_allclose(pieces, whole, atol=1e-4)


def test_trace_names_the_steps_in_order(llm: ml.LLM) -> None:
    ids = llm.tokenizer.encode(PROMPT)
    found = llm.trace(ids)
    names = list(found)
    assert names[0] == "inp_embd" and names[-2:] == ["result_norm", "result_output"]
    assert names.index("Qcur-0") < names.index("kq_soft_max-0") < names.index("l_out-0") < names.index("attn_norm-1")
    np.testing.assert_allclose(found["result_output"], llm.logits(ids), atol=1e-4)
    weights = found["kq_soft_max-1"]
    assert weights.shape == (llm.config.head_count, len(ids), len(ids))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert (np.triu(weights[0], 1) == 0).all()
    np.testing.assert_allclose(found["ffn_inp-0"], found["inp_embd"] + found["attn_out-0"], atol=1e-5)


class TestSession:
    def test_a_second_call_evaluates_only_what_is_new(self, llm: ml.LLM) -> None:
        kept = llm.session()
        ids = llm.tokenizer.encode(PROMPT)
        first = llm.generate(ids, n=5, temp=0, session=kept, ignore_eos=True)
        assert first.timings.prompt_tokens == len(ids)
        longer = ids + list(first.tokens) + [9, 10, 11]
        second = llm.generate(longer, n=5, temp=0, session=kept, ignore_eos=True)
        # the last sampled token was never run: it and the three new ones are evaluated
        assert second.timings.prompt_tokens == 4
        assert second.tokens == llm.generate(longer, n=5, temp=0, ignore_eos=True).tokens

    def test_another_beginning_forgets(self, llm: ml.LLM) -> None:
        kept = llm.session()
        llm.generate([1, 5, 6, 7, 8], n=3, temp=0, session=kept)
        other = llm.generate([1, 5, 9, 9], n=3, temp=0, session=kept)
        assert other.timings.prompt_tokens == 2
        assert other.tokens == llm.generate([1, 5, 9, 9], n=3, temp=0).tokens

    def test_the_same_prompt_again_evaluates_one_token(self, llm: ml.LLM) -> None:
        kept = llm.session()
        first = llm.generate(PROMPT, n=4, temp=0, session=kept)
        again = llm.generate(PROMPT, n=4, temp=0, session=kept)
        assert again.timings.prompt_tokens == 1 and again.tokens == first.tokens

    def test_the_cache_grows_with_the_text(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_cache, "FIRST_CAPACITY", 32)
        ids = np.random.default_rng(3).integers(3, 300, 30).tolist()
        grown = llm.generate(ids, n=40, temp=0, ignore_eos=True)
        monkeypatch.setattr(text_cache, "FIRST_CAPACITY", 512)
        assert grown.tokens == llm.generate(ids, n=40, temp=0, ignore_eos=True).tokens

    def test_survives_an_interrupt_that_lost_the_cache(self, llm: ml.LLM) -> None:
        kept = llm.session()
        expected = llm.generate(PROMPT, n=4, temp=0, session=kept)
        for leaf in jax.tree.leaves(kept._cache.handle):
            leaf.delete()
        assert llm.generate(PROMPT, n=4, temp=0, session=kept).tokens == expected.tokens


class TestEnds:
    def test_limit(self, llm: ml.LLM) -> None:
        done = llm.generate(PROMPT, n=3, temp=0, ignore_eos=True)
        assert done.reason is Reason.LIMIT and len(done.tokens) == 3

    def test_nothing_asked_for(self, llm: ml.LLM) -> None:
        done = llm.generate(PROMPT, n=0)
        assert (done.text, done.tokens, done.reason) == ("", (), Reason.LIMIT)

    def test_end_token(self, llm: ml.LLM) -> None:
        done = llm.generate(PROMPT, n=50, logit_bias=((llm.tokenizer.eos, 1000.0),))
        assert done.reason is Reason.STOP and done.tokens == (llm.tokenizer.eos,) and done.text == ""

    def test_full_context(self, llm: ml.LLM) -> None:
        small = ml.load(llm.path, ctx_size=256, progress=False)
        ids = np.random.default_rng(4).integers(3, 300, 245).tolist()
        done = small.generate(ids, temp=0, ignore_eos=True)
        assert done.reason is Reason.LENGTH
        assert len(ids) + len(done.tokens) == 256  # as llama.cpp

    def test_context_shift_goes_on(self, llm: ml.LLM) -> None:
        small = ml.load(llm.path, ctx_size=256, progress=False)
        ids = np.random.default_rng(5).integers(3, 300, 245).tolist()
        kept = small.session()
        done = small.generate(ids, n=30, temp=0, ignore_eos=True, context_shift=True, keep=4, session=kept)
        assert done.reason is Reason.LIMIT and len(done.tokens) == 30
        assert kept.tokens[:5] == ids[:5]  # keep=4 and BOS's place
        before = ids + list(done.tokens[:10])
        shifted = before[:5] + before[5 + (255 - 5) // 2 :]
        assert kept.tokens[: len(shifted)] == shifted

    def test_stop_string(self, llm: ml.LLM) -> None:
        free = llm.generate(PROMPT, n=40, seed=3, ignore_eos=True)
        word = free.text[5:8]
        done = llm.generate(PROMPT, n=40, seed=3, ignore_eos=True, stop=[word])
        assert done.reason is Reason.WORD
        assert done.text == free.text[: free.text.index(word)]

    def test_stop_text_of_a_control_token(self, llm: ml.LLM) -> None:
        """Control tokens have no text of their own in the answer; llama.cpp compares the token."""
        likeliest = ((llm.tokenizer.bos, 1000.0),)
        done = llm.generate(PROMPT, n=9, logit_bias=likeliest, stop=["no", "<s>"], ignore_eos=True)
        assert (done.reason, done.tokens, done.text) == (Reason.WORD, (llm.tokenizer.bos,), "")
        twice = llm.generate(PROMPT, n=9, logit_bias=likeliest, stop="<s><s>", lookup=True)
        assert (twice.reason, len(twice.tokens)) == (Reason.WORD, 2)

    def test_closing_keeps_the_text_and_the_session(self, llm: ml.LLM) -> None:
        kept = llm.session()
        running = llm.stream(PROMPT, n=50, temp=0, ignore_eos=True, session=kept)
        pieces = [next(running) for _ in range(3)]
        with pytest.raises(ValueError, match="has not ended"):
            _ = running.completion
        running.close()
        assert running.state is State.DONE
        assert running.completion.reason is Reason.INTERRUPTED
        assert running.completion.tokens == tuple(piece.token for piece in pieces)
        assert llm.generate(PROMPT, n=3, temp=0, session=kept).tokens == running.completion.tokens

    def test_an_interrupt_keeps_what_was_written(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = llm.generate(PROMPT, n=20, temp=0, ignore_eos=True)  # compiled now, so that a step runs ahead
        steps, calls = session.Session.generate, []

        def interrupted(self: session.Session, *arguments: object) -> object:
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return steps(self, *arguments)

        kept = llm.session()
        with monkeypatch.context() as patch:
            patch.setattr(session.Session, "generate", interrupted)
            done = llm.generate(PROMPT, n=20, temp=0, ignore_eos=True, session=kept)
        assert done.reason is Reason.INTERRUPTED and done.tokens == expected.tokens[:2]
        again = llm.generate(PROMPT, n=20, temp=0, ignore_eos=True, session=kept)
        assert again.tokens == expected.tokens and again.timings.prompt_tokens == 1


class TestSampling:
    def test_a_seed_repeats_itself(self, llm: ml.LLM) -> None:
        first = llm.generate(PROMPT, n=12, seed=5, temp=2.0)
        assert first.tokens == llm.generate(PROMPT, n=12, seed=5, temp=2.0).tokens
        assert first.tokens != llm.generate(PROMPT, n=12, seed=6, temp=2.0).tokens

    def test_a_random_seed_is_told(self, llm: ml.LLM) -> None:
        first = llm.generate(PROMPT, n=12, temp=2.0)
        assert first.tokens == llm.generate(PROMPT, n=12, temp=2.0, seed=first.seed).tokens

    def test_penalties_see_the_prompt(self, llm: ml.LLM) -> None:
        """A huge presence penalty forbids what the prompt holds."""
        ids = list(range(3, 60))
        done = llm.generate([1, *ids], n=5, temp=0, presence_penalty=1e6, repeat_last_n=100, ignore_eos=True)
        assert not set(done.tokens) & set(ids) and len(set(done.tokens)) == 5

    def test_the_files_own_defaults_come_between(self, llm: ml.LLM) -> None:
        file = dict(llm.metadata) | {"general.sampling.temp": 0.25, "general.sampling.penalty_repeat": 1.5}
        assert file_defaults(file) == {"temp": 0.25, "repeat_penalty": 1.5}
        assert llm.sampling().temp == 0.8

    def test_tokens_that_the_file_suppresses(self, llm: ml.LLM) -> None:
        (first,) = llm.generate(PROMPT, n=1, temp=0, ignore_eos=True).tokens
        key = {"tokenizer.ggml.suppress_tokens": np.array([first, 10**6], np.int32)}
        other = replace(llm, file=replace(llm.file, metadata={**llm.metadata, **key}))
        (found,) = other.generate(PROMPT, n=1, temp=0, ignore_eos=True, logit_bias=((first, 50.0),)).tokens
        logits = llm.logits(PROMPT)[-1]
        logits[[first, *llm.tokenizer.eog]] = -np.inf
        assert found == logits.argmax() != first

    def test_moving_a_value_does_not_recompile(self, llm: ml.LLM) -> None:
        llm.generate(PROMPT, n=3, temp=0.5)
        assert llm.generate(PROMPT, n=3, temp=0.9, top_k=13, top_p=0.5, min_p=0.2).timings.compile == 0


class TestChangedFile:
    def test_shorter_file_is_found_before_the_next_call(self, llm: ml.LLM, tmp_path: Path) -> None:
        path = write_tiny(tmp_path / "m.gguf", "llama")
        own = ml.load(path, progress=False, **EXACT)
        kept = own.session()
        assert own.generate(PROMPT, n=2, temp=0, session=kept).tokens == llm.generate(PROMPT, n=2, temp=0).tokens
        copied = ml.load(path, progress=False, use_mmap=False, **EXACT)
        os.truncate(path, 100_000)
        for call in (own.generate, own.stream, own.logits, own.trace, own.measure):
            with pytest.raises(ml.ResourceError, match=r"m\.gguf has become shorter .*; load the model again"):
                call(PROMPT)
        assert copied.generate(PROMPT, n=2, temp=0).tokens == llm.generate(PROMPT, n=2, temp=0).tokens


class TestChat:
    def test_rendered_prompt_is_what_is_encoded(self, llm: ml.LLM) -> None:
        messages = [{"role": "user", "content": "你好"}]
        assert "<|im_start|>user\n你好<|im_end|>" in llm.render(messages)
        done = llm.chat(messages, n=4, temp=0)
        assert done.prompt_tokens == len(llm.encode_chat(messages))
        assert [p.token for p in llm.chat_stream(messages, n=4, temp=0)] == list(done.tokens)

    def test_without_a_template_it_says_what_to_do(self, llm: ml.LLM) -> None:
        bare = ml.load(llm.path, progress=False)
        with pytest.raises(ml.UnsupportedError, match=r"no chat template; choose one with chat_template: .*chatml"):
            bare.chat([{"role": "user", "content": "hi"}])

    def test_unknown_template_lists_the_known(self, llm: ml.LLM) -> None:
        with pytest.raises(ml.OptionError, match=r"'nonsense'.*chatml"):
            ml.load(llm.path, chat_template="nonsense", progress=False)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"n": -3}, "n is -3"), ({"stop": [""]}, "stop is"), ({"keep": -2}, "keep is -2"),
            ({"temp": float("nan")}, "temp"), ({"top_p": 1.5}, "top_p"),
        ],
    )  # fmt: skip
    def test_impossible_option(self, llm: ml.LLM, options: dict, words: str) -> None:
        with pytest.raises(ml.OptionError, match=words):
            llm.generate(PROMPT, **options)

    def test_unknown_option(self, llm: ml.LLM) -> None:
        for call in (llm.generate, llm.stream):
            with pytest.raises(ml.OptionError, match="temprature is not an option here; use temp"):
                call(PROMPT, temprature=1.0)

    @pytest.mark.parametrize(
        ("theirs", "ours"), [("max_tokens", "n"), ("temperature", "temp"), ("stop_sequences", "stop")]
    )
    def test_option_of_another_library(self, llm: ml.LLM, theirs: str, ours: str) -> None:
        with pytest.raises(ml.OptionError, match=f"{theirs} is not an option here; use {ours}$"):
            llm.chat([{"role": "user", "content": "Hello"}], **{theirs: 1})

    def test_prompt_longer_than_the_context(self, llm: ml.LLM) -> None:
        with pytest.raises(ml.OptionError, match=r"prompt has 509 tokens, too many for a context of 512"):
            llm.generate([5] * 509)

    @pytest.mark.parametrize("call", ["generate", "stream", "measure", "logits", "trace"])
    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ([1, 300], "token id 300 is outside the vocabulary of 300"),
            ([-1], "token id -1 is outside the vocabulary of 300"),
            (b"Once", "the text is of type bytes; decode it first"),
            ([1, True], r"\[1\] is True; expected a token id"),
            (np.array([1, 300], np.uint16), "token id 300 is outside the vocabulary of 300"),
        ],
    )
    def test_no_prompt(self, llm: ml.LLM, call: str, prompt: object, message: str) -> None:
        with pytest.raises(ml.OptionError, match=message):
            getattr(llm, call)(prompt)

    def test_text_array_and_ids_are_the_same_prompt(self, llm: ml.LLM) -> None:
        ids = llm.tokenizer.encode(PROMPT)
        expected = llm.logits(ids)
        assert np.array_equal(llm.logits(PROMPT), expected) and np.array_equal(llm.logits(np.array(ids)), expected)
        assert llm.generate(np.array(ids), n=4, temp=0).tokens == llm.generate(PROMPT, n=4, temp=0).tokens

    def test_session_of_another_model(self, llm: ml.LLM) -> None:
        other = ml.load(llm.path, progress=False, **EXACT).session()
        with pytest.raises(ml.OptionError, match="session belongs to another model"):
            llm.generate(PROMPT, n=1, session=other)
        assert other.tokens == []

    @pytest.mark.parametrize("rows", [VOCAB + 20, VOCAB - 20])
    def test_rows_that_are_no_tokens(self, tmp_path: Path, rows: int) -> None:
        """llama.cpp refuses both: "wrong shape"."""
        path = write_tiny(tmp_path / "m.gguf", "llama", rows=rows)
        with pytest.raises(
            ml.FormatError, match=rf"m\.gguf: token_embd\.weight has {rows} rows, but .* has 300 tokens"
        ):
            ml.load(path, progress=False)

    def test_ignored_metadata_is_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        variant = replace(VARIANTS["llama"], metadata={"attention.scale": 0.5, "rope.scaling.yarn_beta_fast": 32.0})
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(VARIANTS, "odd", variant)
            path = write_tiny(tmp_path / "m.gguf", "odd")
        ml.load(path, progress=False)
        assert "m.gguf: ignored metadata, as in llama.cpp: llama.attention.scale" in caplog.text
        assert "yarn_beta_fast" not in caplog.text  # the value that counts anyway

    def test_context_that_cannot_fit(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ml.ResourceError, match=r"a context of 1000000000\d* tokens needs .* GiB .*but .* free"):
            ml.load(llm.path, ctx_size=10**9, progress=False)
        monkeypatch.setattr(memory_budget, "available_bytes", lambda _: 3 << 19)
        assert ml.load(llm.path, progress=False).ctx_size == 256  # the model's own context shrinks to fit
        monkeypatch.setattr(memory_budget, "available_bytes", lambda _: 1 << 19)
        with pytest.raises(ml.ResourceError, match=r"256 tokens needs .* but .* are free; choose a smaller"):
            ml.load(llm.path, progress=False)

    @pytest.mark.parametrize(("name", "value"), [("ctx_size", -1), ("batch_size", 0), ("ubatch_size", 0)])
    def test_impossible_size(self, llm: ml.LLM, name: str, value: int) -> None:
        with pytest.raises(ml.OptionError, match=f"{name} is {value}"):
            ml.load(llm.path, progress=False, **{name: value})


class TestPlacement:
    def test_no_accelerator_is_said_aloud(self, caplog: pytest.LogCaptureFixture) -> None:
        placement = place_layers(4, 3)
        assert placement.single is not None and "n_gpu_layers=3" in caplog.text

    def test_two_devices_give_the_same_text(self, tmp_path: Path) -> None:
        """Layers are counted from the end, the head is one; in a process where a virtual device is the accelerator."""
        path = write_tiny(tmp_path / "m.gguf", "gemma3")
        script = f"""
import jax, numpy as np, minillama as ml
from minillama import env
env.prepare(cpu_devices=2)
from minillama.engine.backends import choose as module
from minillama.engine.loading.layer_placement import split_layers
whole = ml.load({str(path)!r}, progress=False, **{EXACT})
host, fast = jax.devices()
for n, offloaded in ((0, 0), (1, 1), (2, 2), (99, 4), (None, 4), (-1, 4)):
    assert split_layers(3, n, host, [fast]).devices == (host,) * (4 - offloaded) + (fast,) * offloaded
runs = split_layers(3, 2, host, [fast]).segments()
assert [(run.device, run.first, run.last) for run in runs] == [(host, 0, 2), (fast, 2, 3)]
module.place_layers = lambda layers, n, *_: split_layers(layers, n, host, [fast])
split = ml.load({str(path)!r}, n_gpu_layers=4, progress=False, **{EXACT})
assert split.backend.placement.single is None
assert {{leaf.device for leaf in jax.tree.leaves(split.backend.params)}} == {{host, fast}}
ids = list(range(5, 45))
a, b = (m.generate(ids, n=8, temp=0, ignore_eos=True).tokens for m in (whole, split))
assert a == b, (a, b)
np.testing.assert_allclose(whole.logits(ids), split.logits(ids), atol=1e-4)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


@given(
    text=st.text("abc", max_size=30), words=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), cuts=st.data()
)
def test_stop_strings_are_found_however_the_text_arrives(text: str, words: list[str], cuts: st.DataObject) -> None:
    watch, shown, rest = StopStrings(words), "", text
    while rest:
        size = cuts.draw(st.integers(1, len(rest)))
        shown += watch.push(rest[:size])
        assert not any(word in shown for word in words)
        rest = rest[size:]
    found = watch.found
    shown += watch.flush()
    hit = any(word in text for word in words)
    assert (found is not None) == hit
    if hit:
        assert text.startswith(shown + found) and not any(word in shown for word in words)
    else:
        assert shown == text


@given(
    text=st.text("abc<>", max_size=30),
    words=st.lists(st.text("abc<>", min_size=1, max_size=4), max_size=3),
    cuts=st.data(),
)
def test_stop_strings_that_span_control_tokens(text: str, words: list[str], cuts: st.DataObject) -> None:
    """The slow way: after each piece, look for all words in the shown text and in the whole text."""
    watch, shown, rest = StopStrings(words), "", text
    whole, visible, hit = "", "", False
    while rest and not hit:
        size = cuts.draw(st.integers(1, len(rest)))
        piece, rest = rest[:size], rest[size:]
        is_shown = cuts.draw(st.booleans())
        shown += watch.push(piece, is_shown=is_shown)
        whole, visible = whole + piece, visible + piece * is_shown
        hit = any(word in seen for word in words for seen in (whole, visible))
        assert (watch.found is not None) == hit
        assert visible.startswith(shown) and not any(word in shown for word in words)
    if not hit:
        assert shown + watch.flush() == visible


class TestAgainstLlamaCpp:
    def test_ids_and_greedy_texts(self, reference: Path) -> None:
        expected = json.loads((reference / "real" / "expected.json").read_text())
        llm = ml.load(reference / "real" / "stories260K.gguf", progress=False)
        for case in expected["prompts"]:
            assert llm.tokenizer.encode(case["prompt"]) == case["ids"]
            done = llm.generate(case["prompt"], n=64, temp=0)
            assert f" {case['prompt']}{done.text}\n\n" == case["greedy_64"]
