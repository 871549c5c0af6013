"""Prompt lookup: the index against a search by hand, and text with drafts against text without.

An oracle that knows the text takes the place of the index where drafts are to be right: random models hardly repeat
themselves.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from draft_oracle import use_oracle
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_tiny

import minillama as ml
from minillama.cli import main
from minillama.cli.output.terminal import timing_lines, turn_line
from minillama.engine import text_cache
from minillama.engine.backends.base import Handle
from minillama.engine.drafting import text_drafter
from minillama.engine.generation.prompt_lookup import PromptLookup
from minillama.engine.result import Completion, Reason
from minillama.engine.session import Session, pass_size

Tokens = Sequence[int]
Mask = np.ndarray | None

EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}  # a 16-bit cache makes much of the last bit
PROMPT = [1, *range(20, 32), *range(20, 26)]
SAMPLERS = {
    "greedy": {"temp": 0.0},
    "plain": {"temp": 0.9, "seed": 1},
    "penalties": {"temp": 0.7, "seed": 2, "repeat_penalty": 1.2, "frequency_penalty": 0.1, "presence_penalty": 0.1},
    "dry": {"temp": 0.7, "seed": 3, "dry_multiplier": 0.8, "dry_allowed_length": 1},
    "xtc": {"temp": 0.9, "seed": 4, "xtc_probability": 0.5, "xtc_threshold": 0.05, "dynatemp_range": 0.3},
    "mirostat 1": {"seed": 5, "mirostat": 1},
    "mirostat 2": {"seed": 6, "mirostat": 2},
}

SLOW = {"gemma2", "mixtral", "dry", "xtc", "mirostat 1"}


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """Some models or samplers, of which some are slow ones: others are much like them."""
    params = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]
    return pytest.mark.parametrize("name", params)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama"), progress=False, **EXACT)


@pytest.fixture(scope="module")
def small(llm: ml.LLM) -> ml.LLM:
    return ml.load(llm.path, ctx_size=256, progress=False, **EXACT)


def same(found: Completion, expected: Completion) -> None:
    assert (found.text, found.tokens, found.reason) == (expected.text, expected.tokens, expected.reason)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)


def held(kept: Session) -> int:
    """Positions that the cache counts after the session has forgotten what it ran ahead."""
    kept._discard_ahead()
    return int(kept._cache.handle.length[0])


class TestIndex:
    @given(
        tokens=st.lists(st.integers(0, 3), max_size=40),
        ngram_max=st.integers(1, 5),
        most=st.integers(0, 9),
        cut=st.integers(0, 40),
    )
    def test_finds_what_a_search_finds(self, tokens: list[int], ngram_max: int, most: int, cut: int) -> None:
        index = PromptLookup(ngram_max, draft_max=6)
        index.extend(tokens[:cut])
        index.draft(most)
        index.extend(tokens[cut:])
        assert index.draft(most) == by_search(tokens, ngram_max, min(most, 6))

    def test_an_example(self) -> None:
        index = PromptLookup(ngram_max=4, draft_max=8)
        index.extend([1, 2, 3, 4, 1, 2])
        assert index.draft(8) == [3, 4, 1, 2, 3, 4, 1, 2]
        assert index.draft(1) == [3]

    def test_the_length_follows_the_luck(self) -> None:
        index = PromptLookup(ngram_max=2, draft_max=12)
        index.extend([5, 5])
        sizes = [len(index.draft(99))]
        for accepted in (0, 1, 3, 7, 12, 2):
            index.learn(accepted)
            sizes.append(len(index.draft(99)))
        assert sizes == [12, 1, 3, 7, 12, 12, 7]


def by_search(tokens: list[int], ngram_max: int, most: int) -> list[int]:
    """The slow twin: look at every earlier place, longest end first, latest place first."""
    for size in range(min(ngram_max, len(tokens)), 0, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                text = list(tokens)
                for place in range(end, end + most):
                    text.append(text[place])
                return text[len(tokens) :]
    return []


class TestSameText:
    @each(["qwen3", "gemma2", "mixtral"])
    def test_of_every_kind_of_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        llm = ml.load(write_tiny(tmp_path / "m.gguf", name), progress=False, **EXACT)
        plain = llm.generate(PROMPT, n=40, temp=0, ignore_eos=True)
        same(llm.generate(PROMPT, n=40, temp=0, ignore_eos=True, lookup=True), plain)
        use_oracle(monkeypatch, PROMPT + list(plain.tokens), wrong=0.4)
        same(llm.generate(PROMPT, n=40, temp=0, ignore_eos=True, lookup=True), plain)

    @each(SAMPLERS)
    def test_of_every_sampler(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        options = {"n": 60, "ignore_eos": True, **SAMPLERS[name]}
        plain = llm.generate(PROMPT, **options)
        assert (plain.timings.drafted_tokens, plain.timings.accepted_tokens) == (0, 0)
        same(llm.generate(PROMPT, lookup=True, **options), plain)
        use_oracle(monkeypatch, PROMPT + list(plain.tokens), wrong=0.4)
        done = llm.generate(PROMPT, lookup=True, **options)
        same(done, plain)
        assert 20 < done.timings.accepted_tokens < done.timings.drafted_tokens

    def test_of_the_built_in_model(self, builtin_model: Path) -> None:
        llm = ml.load(builtin_model, progress=False)
        prompt = "Once upon a time there was a fox. The fox had a red hat. Once upon a time there was a"
        for options in ({"temp": 0.0}, {"temp": 0.8, "seed": 11}):
            plain = llm.generate(prompt, n=60, **options)
            done = llm.generate(prompt, n=60, lookup=True, **options)
            assert (done.tokens, done.text) == (plain.tokens, plain.text)
            assert done.timings.drafted_tokens > 0

    def test_over_several_devices(self, tmp_path: Path) -> None:
        path = write_tiny(tmp_path / "m.gguf", "llama")
        script = f"""
import jax, minillama as ml
from minillama import env
env.prepare(cpu_devices=2)
from minillama.engine.backends import choose as module
from minillama.engine.loading.layer_placement import split_layers
module.place_layers = lambda layers, n, *_: split_layers(layers, n, jax.devices()[0], jax.devices()[1:])
split = ml.load({str(path)!r}, n_gpu_layers=2, progress=False, cache_type_k="f32", cache_type_v="f32")
assert split.backend.placement.single is None
options = dict(n=40, temp=0.3, seed=1, ignore_eos=True, repeat_penalty=0.8)
plain, done = (split.generate({PROMPT}, lookup=lookup, **options) for lookup in (False, True))
assert plain.tokens == done.tokens, (plain.tokens, done.tokens)
assert 0 < done.timings.accepted_tokens < done.timings.drafted_tokens, done.timings
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    def test_where_the_cache_grows(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = llm.generate(PROMPT, n=60, temp=0, ignore_eos=True)
        monkeypatch.setattr(text_cache, "FIRST_CAPACITY", 32)
        use_oracle(monkeypatch, PROMPT + list(plain.tokens))
        same(llm.generate(PROMPT, n=60, temp=0, ignore_eos=True, lookup=True), plain)

    def test_without_a_match_plain_steps_run(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        silent = type("Silent", (PromptLookup,), {"draft": lambda self, most: []})
        monkeypatch.setattr(text_drafter, "PromptLookup", silent)
        generate = Session.generate

        def undrafted(self: Session, chain: Handle, state: Handle, token: Handle, draft: Tokens, mask: Mask) -> object:
            assert not draft
            return generate(self, chain, state, token, draft, mask)

        monkeypatch.setattr(Session, "generate", undrafted)
        done = llm.generate(PROMPT, n=20, temp=0, ignore_eos=True, lookup=True)
        same(done, llm.generate(PROMPT, n=20, temp=0, ignore_eos=True))
        assert done.timings.drafted_tokens == 0


class TestEnds:
    """With drafts that are always right and long, so that the end falls inside one."""

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 16, 17])
    def test_limit(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
        endless = llm.generate(PROMPT, n=40, temp=0.9, seed=1, ignore_eos=True)
        use_oracle(monkeypatch, PROMPT + list(endless.tokens), sizes=(7, 7))
        kept = llm.session()
        done = llm.generate(PROMPT, n=n, temp=0.9, seed=1, ignore_eos=True, lookup=True, session=kept)
        assert (done.tokens, done.reason) == (endless.tokens[:n], Reason.LIMIT)
        assert kept.tokens == PROMPT + list(done.tokens[:-1]) and held(kept) == len(kept.tokens)

    @pytest.mark.parametrize("lookup", [False, True])
    def test_end_token(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, lookup: bool) -> None:
        options = {"n": 60, "temp": 1.5, "logit_bias": ((llm.tokenizer.eos, 4.0),)}
        plain = next(
            done
            for seed in range(100)
            if (done := llm.generate(PROMPT, seed=seed, **options)).reason is Reason.STOP and len(done.tokens) in (4, 6)
        )
        use_oracle(monkeypatch, [*PROMPT, *plain.tokens, 30, 31, 32, 33], sizes=(7, 7))
        kept = llm.session()
        done = llm.generate(PROMPT, seed=plain.seed, lookup=lookup, session=kept, **options)
        same(done, plain)
        assert kept.tokens == PROMPT + list(done.tokens[:-1]) and held(kept) == len(kept.tokens)
        if lookup:
            assert done.timings.accepted_tokens == len(done.tokens) - 1 < done.timings.drafted_tokens

    @pytest.mark.parametrize("lookup", [False, True])
    def test_stop_string(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, lookup: bool) -> None:
        endless = llm.generate(PROMPT, n=40, seed=3, ignore_eos=True)
        options = {"n": 40, "seed": 3, "ignore_eos": True, "stop": [endless.text[12:15]]}
        plain = llm.generate(PROMPT, **options)
        assert plain.reason is Reason.WORD
        use_oracle(monkeypatch, PROMPT + list(endless.tokens), sizes=(7, 7))
        kept = llm.session()
        same(llm.generate(PROMPT, lookup=lookup, session=kept, **options), plain)
        assert kept.tokens == PROMPT + list(plain.tokens[:-1]) and held(kept) == len(kept.tokens)

    def test_full_context(self, small: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        for length in range(240, 247):
            ids = np.random.default_rng(length).integers(3, 300, length).tolist()
            plain = small.generate(ids, temp=0, ignore_eos=True)
            with monkeypatch.context() as patch:
                use_oracle(patch, [*ids, *plain.tokens, *range(3, 20)], sizes=(7, 7))
                kept = small.session()
                same(small.generate(ids, temp=0, ignore_eos=True, lookup=True, session=kept), plain)
            assert plain.reason is Reason.LENGTH and kept.room == 1 and held(kept) == 255

    def test_context_shift(self, small: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = np.random.default_rng(5).integers(3, 300, 245).tolist()
        options = {"n": 60, "temp": 0.9, "seed": 2, "ignore_eos": True, "context_shift": True, "keep": 4}
        kept = small.session()
        plain = small.generate(ids, session=kept, **options)
        use_oracle(monkeypatch, ids + list(plain.tokens), wrong=0.3)
        drafted = small.session()
        same(small.generate(ids, lookup=True, session=drafted, **options), plain)
        assert drafted.tokens == kept.tokens


class TestSession:
    @pytest.mark.parametrize("lookup", [False, True])
    @pytest.mark.parametrize("count", [1, 3, 5, 12])
    def test_goes_on_after_a_stream_is_closed(
        self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, lookup: bool, count: int
    ) -> None:
        """Closed in the middle of a draft, or with a step under way, it holds what was written and no more."""
        options = {"temp": 0.9, "seed": 8, "ignore_eos": True}
        text = llm.generate(PROMPT, n=40, **options).tokens
        kept = llm.session()
        with monkeypatch.context() as patch:
            use_oracle(patch, PROMPT + list(text), sizes=(7, 7))
            with llm.stream(PROMPT, lookup=lookup, session=kept, **options) as stream:
                written = [piece.token for _, piece in zip(range(count), stream, strict=False)]
        assert tuple(written) == text[:count] == stream.completion.tokens
        assert kept.tokens == PROMPT + written[:-1]
        longer = PROMPT + written + [40, 41]
        again = llm.generate(longer, n=10, session=kept, **options)
        assert again.timings.prompt_tokens == (4 if count == 1 else 3), "a step ran the last token of the prompt"
        same(again, llm.generate(longer, n=10, **options))

    def test_a_step_that_nobody_holds_is_forgotten(self, llm: ml.LLM) -> None:
        """A stream is left where it is, with the next step under way; the session goes elsewhere."""
        kept = llm.session()
        stream = llm.stream(PROMPT, temp=0, session=kept, ignore_eos=True)
        written = [next(stream).token for _ in range(3)]
        assert kept.tokens == PROMPT + written[:2] and kept._ahead == 1
        expected = llm.logits([*PROMPT, *written[:2], 40])[-1]
        np.testing.assert_allclose(kept.decode(40)[0], expected, atol=1e-4)
        assert held(kept) == len(kept.tokens) == len(PROMPT) + 3

    def test_only_what_was_run_can_be_held(self, llm: ml.LLM) -> None:
        with pytest.raises(ml.OptionError, match="token 5 has not been run"):
            llm.session().commit(5)

    def test_decode_is_reading_one_token(self, llm: ml.LLM) -> None:
        kept = llm.session()
        for _ in kept.prefill(PROMPT[:-3]):
            pass
        logits = [kept.decode(token)[0] for token in PROMPT[-3:]]
        np.testing.assert_allclose(np.stack(logits), llm.logits(PROMPT)[-3:], atol=1e-4)
        assert kept.tokens == PROMPT


class TestReport:
    def test_a_text_that_repeats_itself_is_accepted(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        """Greedy decoding with a bias runs in circles; whole drafts are right, and each is one pass of the model."""
        circle = {"n": 81, "temp": 0, "ignore_eos": True, "logit_bias": ((50, 1e4),)}
        calls: list[int] = []
        generate = Session.generate

        def counted(self: Session, chain: Handle, state: Handle, token: Handle, draft: Tokens, mask: Mask) -> object:
            calls.extend([len(draft)] * bool(draft))
            return generate(self, chain, state, token, draft, mask)

        monkeypatch.setattr(Session, "generate", counted)
        done = llm.generate([1, 50, 50], lookup=True, draft_max=7, **circle)
        timings = done.timings
        assert done.tokens == (50,) * 81
        assert calls == [7] * 10 and timings.drafted_tokens == timings.accepted_tokens == 70
        assert timings.accept_rate == 1 and timings.generated_tokens == 81 and len(timings.token_seconds) == 80
        shared = [a == b for a, b in pairwise(timings.token_seconds)]
        assert sum(shared) >= 70  # the 8 tokens of a pass share its time
        done = llm.generate([1, 50, 50], lookup=True, draft_max=3, **circle)
        assert done.timings.accepted_tokens == 60 and done.tokens == (50,) * 81

    def test_passes_have_few_sizes(self) -> None:
        assert [pass_size(count) for count in range(1, 10)] == [1, 2, 4, 4, 8, 8, 8, 8, 16]

    @pytest.mark.parametrize("name", ["draft_max", "ngram_max"])
    @pytest.mark.parametrize("value", [-1, 64, True])
    def test_impossible_option(self, llm: ml.LLM, name: str, value: object) -> None:
        with pytest.raises(ml.OptionError, match=rf"{name} is {value!r}; expected [01] to "):
            llm.generate(PROMPT, n=1, lookup=True, **{name: value})

    def test_on_the_command_line(self, builtin_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["run", "-m", str(builtin_model), "-no-cnv", "-p", "a fox and a fox and a", "-n", "30", "--temp", "0"]
        assert main(words) == 0
        plain = capsys.readouterr()
        assert main([*words, "--lookup", "--draft-max", "2", "--ngram-max", "2"]) == 0
        drafted = capsys.readouterr()
        assert drafted.out == plain.out
        assert "drafts = n_drafted " in drafted.err and "n_drafted" not in plain.err

    def test_in_the_timings(self, llm: ml.LLM) -> None:
        timings = llm.generate([1, 50, 50], lookup=True, n=9, temp=0, draft_max=7, logit_bias=((50, 1e4),)).timings
        counts = "n_drafted 7, n_accept 7, accept 100.0 %"
        assert f"          drafts = {counts}" in timing_lines(timings)
        assert turn_line(timings).endswith(f" t/s | Drafts: {counts} ]")
