"""Draft models: texts with guesses are the texts without, whatever is guessed; refusals, counts, ends.

A copy of the model guesses all tokens right, another random model nearly none. Guesses of any tokens stand for every
draft model that there is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import write_tiny

import minillama as ml
from minillama.cli import main
from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.policy.slot_drafter import SlotDrafter
from minillama.engine.drafting.draft_executor import DraftExecutor
from minillama.engine.drafting.guesser import DraftText
from minillama.engine.result import Completion, Reason
from minillama.kernels.cpu_available import instruction_set

CTX, SLOTS = 256, 4
PROMPTS = ["the ant sat on", "the ant sat on the north end ", "a", "north north north north", "the ant ate"]
SEEDED = {"temp": 0.9, "ignore_eos": True}
GREEDY = {"temp": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder / "target.gguf", "llama", GGMLQuantizationType.Q8_0)
    write_tiny(folder / "other.gguf", "llama", GGMLQuantizationType.Q8_0, seed=1)
    return folder


def load(folder: Path, draft: str | None = None, **options: object) -> ml.LLM:
    model_draft = None if draft is None else folder / draft
    return ml.load(folder / "target.gguf", model_draft=model_draft, ctx_size=CTX, progress=False, **options)


@pytest.fixture(scope="module")
def plain(folder: Path) -> ml.LLM:
    return load(folder)


@pytest.fixture(scope="module")
def right(folder: Path) -> ml.LLM:
    """A model whose draft model is a copy of it."""
    return load(folder, "target.gguf")


@pytest.fixture(scope="module")
def wrong(folder: Path) -> ml.LLM:
    """A model whose draft model has other weights."""
    return load(folder, "other.gguf")


@pytest.fixture(scope="module")
def engine(right: ml.LLM) -> Iterator[BatchEngine]:
    with right.batch_engine(SLOTS) as engine:
        yield engine


@pytest.fixture(scope="module")
def wrong_engine(wrong: ml.LLM) -> Iterator[BatchEngine]:
    with wrong.batch_engine(SLOTS) as engine:
        yield engine


def same(found: Completion, expected: Completion) -> None:
    """The same tokens with the same bits, and the same end."""
    assert (found.tokens, found.logprobs, found.text) == (expected.tokens, expected.logprobs, expected.text)
    assert found.reason is expected.reason


class TestOneText:
    @pytest.mark.parametrize(
        "options",
        [
            GREEDY,
            {**SEEDED, "seed": 3},
            pytest.param({**SEEDED, "seed": 4, "repeat_penalty": 1.3}, marks=pytest.mark.slow),
        ],
    )
    def test_the_same_bits(self, plain: ml.LLM, right: ml.LLM, wrong: ml.LLM, options: dict[str, object]) -> None:
        expected = plain.generate(PROMPTS[0], n=30, **options)
        assert expected.timings.drafted_tokens == 0
        done = {name: llm.generate(PROMPTS[0], n=30, **options) for name, llm in (("right", right), ("wrong", wrong))}
        for found in done.values():
            same(found, expected)
            assert found.timings.drafted_tokens > 0
        assert done["wrong"].timings.accept_rate < 0.5
        if options is GREEDY:  # 29 tokens after the first, in passes of a token and 3 right guesses
            assert (done["right"].timings.drafted_tokens, done["right"].timings.accepted_tokens) == (21, 21)

    def test_off_unless_wanted(self, right: ml.LLM) -> None:
        assert right.generate(PROMPTS[0], n=9, draft_max=0, **GREEDY).timings.drafted_tokens == 0

    @pytest.mark.parametrize(
        "draft_max", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)]
    )
    def test_the_longest_guess(self, plain: ml.LLM, right: ml.LLM, draft_max: int) -> None:
        done = right.generate(PROMPTS[1], n=17, draft_max=draft_max, **GREEDY)
        same(done, plain.generate(PROMPTS[1], n=17, **GREEDY))
        drafted, accepted = done.timings.drafted_tokens, done.timings.accepted_tokens
        if instruction_set() != "amx":
            assert drafted == accepted == 16 * draft_max // (draft_max + 1)
        else:  # the draft model reads its texts in tiles of bfloat16, so that a guess may be another token
            assert drafted >= accepted >= 10 * draft_max // (draft_max + 1)

    def test_the_shortest_guess(self, right: ml.LLM) -> None:
        """Where fewer tokens than draft_min are left, nothing is guessed."""
        done = right.generate(PROMPTS[1], n=12, draft_max=3, draft_min=3, **GREEDY)
        assert done.timings.drafted_tokens == 6  # 11 tokens: 4, 4, and 3 alone

    def test_unlikely_guesses_are_cut(self, right: ml.LLM) -> None:
        """The probability is among the ten likeliest tokens, which random models know nothing about."""
        done = [right.generate(PROMPTS[0], n=30, draft_p_min=p, **GREEDY) for p in (0.0, 0.3, 1.0)]
        drafted = [each.timings.drafted_tokens for each in done]
        assert drafted[0] > drafted[1] > drafted[2] == 0
        assert len({each.tokens for each in done}) == 1

    @pytest.mark.slow
    def test_with_lookup(self, plain: ml.LLM, wrong: ml.LLM) -> None:
        """Lookup guesses first; the draft model where nothing repeats."""
        options = {"n": 40, "logit_bias": ((50, 9.0),), **SEEDED, "seed": 1}
        done = wrong.generate([1, 50, 50], lookup=True, **options)
        same(done, plain.generate([1, 50, 50], **options))
        assert done.timings.accepted_tokens > 10

    def test_a_session_goes_on(self, plain: ml.LLM, right: ml.LLM) -> None:
        """The draft model, too, reads only new tokens, and follows a text that goes back."""
        kept, reference = right.session(), plain.session()
        for prompt in (PROMPTS[1], PROMPTS[1] + "of a", PROMPTS[0], "a"):
            found, expected = (
                llm.generate(prompt, session=session, n=9, **GREEDY)
                for llm, session in ((right, kept), (plain, reference))
            )
            assert found.tokens == expected.tokens and found.timings.accept_rate == 1

    @pytest.mark.slow
    def test_grammars_have_no_guesses(self, plain: ml.LLM, right: ml.LLM) -> None:
        options = {"grammar": 'root ::= ("the" | " ")+', "n": 8, "temp": 0}
        done = right.generate(PROMPTS[0], **options)
        assert done.tokens == plain.generate(PROMPTS[0], **options).tokens and done.timings.drafted_tokens == 0


@pytest.mark.slow
class TestEnds:
    @pytest.mark.parametrize("n", [1, 2, 4, 5, 6])
    def test_limit(self, plain: ml.LLM, right: ml.LLM, n: int) -> None:
        same(right.generate(PROMPTS[0], n=n, **GREEDY), plain.generate(PROMPTS[0], n=n, **GREEDY))

    def test_stop_string(self, plain: ml.LLM, right: ml.LLM, engine: BatchEngine) -> None:
        whole = plain.generate(PROMPTS[0], n=40, **GREEDY)
        options = {"n": 40, "stop": [whole.text[5:8]], **GREEDY}
        expected = plain.generate(PROMPTS[0], **options)
        assert expected.reason is Reason.WORD
        same(right.generate(PROMPTS[0], **options), expected)
        same(engine.submit(PROMPTS[0], **options).finish(), expected)

    @pytest.mark.parametrize("left", [2, 3, 4, 5, 9])
    def test_full_context(self, plain: ml.LLM, right: ml.LLM, engine: BatchEngine, left: int) -> None:
        ids = np.random.default_rng(left).integers(3, 300, CTX - left).tolist()
        for options in (GREEDY, {**GREEDY, "n": 20, "context_shift": True, "keep": 4}):
            if left >= 4:
                expected = plain.generate(ids, **options)
                found = right.generate(ids, **options)
                assert (found.tokens, found.reason) == (expected.tokens, expected.reason)
            else:
                with plain.batch_engine(SLOTS) as reference:
                    expected = reference.submit(ids, **options).finish()
            done = engine.submit(ids, **options).finish()
            assert (done.tokens, done.reason) == (expected.tokens, expected.reason)

    def test_cancelled_and_closed(self, plain: ml.LLM, right: ml.LLM, engine: BatchEngine) -> None:
        expected = plain.generate(PROMPTS[0], n=40, **GREEDY).tokens
        stream = engine.submit(PROMPTS[0], **GREEDY)
        next(stream)
        stream.close()
        written = stream.completion.tokens
        assert written == expected[: len(written)] and stream.completion.reason is Reason.INTERRUPTED
        kept = right.session()
        with right.stream(PROMPTS[0], session=kept, **GREEDY) as lone:
            written = [piece.token for _, piece in zip(range(6), lone, strict=False)]
        assert kept.tokens == [*right.tokenizer.encode(PROMPTS[0]), *written[:-1]]
        same(engine.submit(PROMPTS[0], n=20, **GREEDY).finish(), plain.generate(PROMPTS[0], n=20, **GREEDY))


@pytest.mark.slow
class TestBatch:
    def test_the_same_bits_in_any_company(self, plain: ml.LLM, engine: BatchEngine, wrong_engine: BatchEngine) -> None:
        requests = [{"n": 20, "seed": seed, **SEEDED} for seed in range(len(PROMPTS))]
        requests[1] |= {"temp": 0.0}
        requests[2] |= {"repeat_penalty": 1.3}  # a sampler of another structure
        requests[4] |= {"draft_max": 0}
        alone = [plain.generate(prompt, **one) for prompt, one in zip(PROMPTS, requests, strict=True)]
        for each in (engine, wrong_engine):
            streams = [each.submit(prompt, **one) for prompt, one in zip(PROMPTS, requests, strict=True)]
            for expected, stream in zip(alone, streams, strict=True):
                same(stream.finish(), expected)
            assert streams[4].completion.timings.drafted_tokens == 0
            counters = each.metrics().counters
            assert (each is engine) == (counters.accepted_drafts > 0.2 * counters.draft_tokens)
            assert 0 < counters.drafts <= counters.draft_tokens
        assert streams[0].drafted_tokens == streams[0].completion.timings.drafted_tokens > 0

    def test_a_copy_guesses_right(self, plain: ml.LLM, engine: BatchEngine) -> None:
        stream = engine.submit(PROMPTS[0], n=17, **GREEDY)
        same(stream.finish(), plain.generate(PROMPTS[0], n=17, **GREEDY))
        assert stream.drafted_tokens == stream.accepted_tokens >= 12
        assert engine.slots_info()[0].is_drafted

    def test_a_grammar_next_to_drafts(self, plain: ml.LLM, engine: BatchEngine) -> None:
        constrained = {"grammar": 'root ::= ("the" | " ")+', "n": 12, "temp": 0}
        streams = [engine.submit(PROMPTS[0], **constrained), engine.submit(PROMPTS[1], n=16, **GREEDY)]
        assert streams[0].finish().tokens == plain.generate(PROMPTS[0], **constrained).tokens
        same(streams[1].finish(), plain.generate(PROMPTS[1], n=16, **GREEDY))

    def test_a_pass_has_few_tokens(self) -> None:
        drafter = SlotDrafter(Guesses([], []), 7, 12, CTX)
        assert [drafter.row_length(rows) for rows in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 256)] == [
            8, 8, 8, 8, 4, 4, 2, 2, 1, 1, 1, 1,
        ]  # fmt: skip
        assert drafter.pass_sizes() == [(1, 8), (2, 8), (4, 8), (8, 4), (16, 2)]
        assert SlotDrafter(Guesses([], []), 3, 12, CTX).row_length(1) == 4

    def test_options(self, right: ml.LLM) -> None:
        with pytest.raises(ml.OptionError, match="draft_max is 99; expected 0 to 63"):
            right.batch_engine(SLOTS, draft_max=99)
        with pytest.raises(ml.OptionError, match=r"draft_p_min is 2\.0; expected a probability, 0 to 1"):
            right.generate("a", draft_p_min=2.0)


class Guesses:
    """Any tokens, as a draft model might guess them."""

    def __init__(self, guesses: Sequence[Sequence[int]], text: Sequence[int]) -> None:
        self._guesses, self._text, self._calls = guesses, text, 0

    def lacks(self, text: DraftText) -> int:
        return 0

    def read(self, text: DraftText) -> None:
        raise AssertionError

    def warm_ups(self) -> Iterator[str]:
        yield from ()

    def guess(self, texts: Sequence[DraftText]) -> list[list[int]]:
        """Some of what really follows, then any tokens."""
        found = []
        for text in texts:
            self._calls += 1
            guess = self._guesses[self._calls % len(self._guesses)]
            right = self._text[len(text.tokens) : len(text.tokens) + guess[0]] if guess else ()
            found.append([*right, *guess[1:]][: text.most])
        return found


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=5))
@settings(max_examples=15)
def test_any_guess_gives_the_same_text(plain: ml.LLM, guesses: list[list[int]]) -> None:
    options = {"n": 20, "seed": 7, **SEEDED}
    expected = plain.generate(PROMPTS[1], **options)
    session = plain.session()
    session.guesser = Guesses(guesses, [*plain.tokenizer.encode(PROMPTS[1]), *expected.tokens])
    same(plain.generate(PROMPTS[1], session=session, draft_max=7, **options), expected)


class TestExecutor:
    def test_greedy_guesses(self, right: ml.LLM) -> None:
        """What it guesses for slots together is what the model writes greedily, from any state of its cache."""
        rng, executor = np.random.default_rng(0), DraftExecutor(
            right.backend, 3, 32, CTX, right.cache_types, 64, right.config.vocab_size
        )  # fmt: skip
        texts = [rng.integers(3, 300, size).tolist() for size in (3, 40, 100)]
        for _ in range(4):
            wanted = [
                DraftText(slot, text, most) for slot, (text, most) in enumerate(zip(texts, (3, 1, 4), strict=True))
            ]
            for text in wanted:
                while executor.lacks(text):
                    executor.read(text)
            guesses = executor.guess(wanted)
            for slot, (text, guess) in enumerate(zip(texts, guesses, strict=True)):
                expected = right.generate(text, n=wanted[slot].most, draft_max=0, **GREEDY)
                assert tuple(guess) == expected.tokens
                accepted = int(rng.integers(len(guess) + 1))
                text += [*guess[:accepted], int(rng.integers(3, 300))]
            texts[0] = texts[0][:2] + texts[0][3:]  # another text
        assert executor.capacity > 32

    @pytest.mark.slow
    def test_no_room(self, right: ml.LLM) -> None:
        executor = DraftExecutor(right.backend, 1, 32, 32, right.cache_types, 64, right.config.vocab_size)
        text = list(range(3, 33))
        for size, guessed in ((28, 4), (30, 2)):
            wanted = DraftText(0, text[:size], 4)
            while executor.lacks(wanted):
                executor.read(wanted)
            assert len(executor.guess([wanted])[0]) == guessed
        longer = DraftText(0, [*text, 5, 6, 7], 4)
        assert executor.lacks(longer) == 0 and executor.guess([longer]) == [[]]


class TestRefused:
    def test_another_vocabulary(self, folder: Path) -> None:
        write_tiny(folder / "more.gguf", "llama", vocab=500)
        with pytest.raises(ml.OptionError) as error:
            load(folder, "more.gguf")
        assert str(error.value) == (
            "the draft model more.gguf does not fit target.gguf: the number of tokens is 500 in place of 300; "
            "choose one with the same vocabulary"
        )

    @pytest.mark.slow
    def test_a_few_tokens_more(self, folder: Path, plain: ml.LLM) -> None:
        """Up to 128 are no other vocabulary; a guess among them is none."""
        write_tiny(folder / "larger.gguf", "llama", vocab=340, seed=3)
        write_tiny(folder / "smaller.gguf", "llama", vocab=290, seed=3)
        expected = plain.generate([1, 295, 20], n=20, **GREEDY)
        for name in ("larger.gguf", "smaller.gguf"):
            same(load(folder, name).generate([1, 295, 20], n=20, **GREEDY), expected)

    def test_recurrent_layers(self, folder: Path) -> None:
        write_tiny(folder / "qwen35.gguf", "qwen35")
        with pytest.raises(ml.UnsupportedError, match=r"qwen35.gguf has recurrent layers, which cannot go back"):
            load(folder, "qwen35.gguf")
        llm = ml.load(folder / "qwen35.gguf", model_draft=folder / "other.gguf", ctx_size=CTX, progress=False)
        with pytest.raises(ml.UnsupportedError, match=r"recurrent layers.*draft_max=0"):
            llm.batch_engine(SLOTS)

    def test_no_file(self, folder: Path) -> None:
        with pytest.raises(ml.ResourceError, match=r"nothing.gguf"):
            load(folder, "nothing.gguf")


@pytest.mark.slow
def test_a_recurrent_model_alone(folder: Path) -> None:
    """It runs the right part of a draft again."""
    write_tiny(folder / "qwen35.gguf", "qwen35")
    expected = ml.load(folder / "qwen35.gguf", ctx_size=CTX, progress=False).generate(PROMPTS[0], n=20, **GREEDY)
    llm = ml.load(folder / "qwen35.gguf", model_draft=folder / "other.gguf", ctx_size=CTX, progress=False)
    assert llm.generate(PROMPTS[0], n=20, **GREEDY).tokens == expected.tokens


@pytest.mark.slow
def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-m", str(folder / "target.gguf"), "-c", str(CTX), "-p", PROMPTS[0], "-n", "16", "--temp", "0"]
    assert main(words) == 0
    alone = capsys.readouterr()
    drafted = [*words, "-md", str(folder / "target.gguf"), "--spec-draft-n-max", "2", "--draft-p-min", "0.01"]
    assert main(drafted) == 0
    found = capsys.readouterr()
    assert found.out == alone.out and "drafts = n_drafted 10, n_accept 10" in found.err
    assert main([*words, "-md", str(folder / "other.gguf"), "--draft-max", "0"]) == 0
    assert "n_drafted" not in capsys.readouterr().err
