"""Many texts at once: each is the text that it is alone, and everything ends."""

import gc
import random
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.batch_errors import ContextSizeError, QueueFullError
from minillama.engine.batching.batch_stream import BatchStream, finish_all
from minillama.engine.batching.device import sampler_pool
from minillama.engine.batching.device.rare_sampler import RareCompilation
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.engine.result import Reason, State

CTX, SLOTS = 256, 4  # one number of slots: each one compiles programs of its own
PROMPTS = ["the ant sat on", "the ant sat on the north end ", "a", "north north north north", "the ant ate"]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama")
    return ml.load(path, ctx_size=CTX, progress=False, cache_type_k="f32", cache_type_v="f32")


@pytest.fixture(scope="module")
def engine(llm: ml.LLM) -> Iterator[BatchEngine]:
    with llm.batch_engine(SLOTS, max_waiting=50) as engine:
        yield engine


def test_a_text_is_the_same_in_any_company(llm: ml.LLM, engine: BatchEngine) -> None:
    settings = [{"n": 12, "seed": seed, "temp": 0.9, "ignore_eos": True} for seed in range(len(PROMPTS))]
    alone = [llm.generate(prompt, **one) for prompt, one in zip(PROMPTS, settings, strict=True)]
    streams = [engine.submit(prompt, **one) for prompt, one in zip(PROMPTS, settings, strict=True)]
    for one, stream in zip(alone, streams, strict=True):
        done = stream.finish()
        assert (done.tokens, done.logprobs, done.text) == (one.tokens, one.logprobs, one.text)
        assert (done.reason, done.prompt_tokens, done.seed) == (one.reason, one.prompt_tokens, one.seed)


@pytest.mark.parametrize("cache_prompt", [True, False])
def test_a_text_does_not_depend_on_the_cache(llm: ml.LLM, engine: BatchEngine, cache_prompt: bool) -> None:
    ids = np.random.default_rng(0).integers(3, 300, 60).tolist()
    alone = llm.generate(ids, n=8, seed=5, temp=0.9)
    engine.submit(ids, n=8, seed=6).finish()
    stream = engine.submit(ids, n=8, seed=5, temp=0.9, cache_prompt=cache_prompt)
    done = stream.finish()
    assert (done.tokens, done.logprobs) == (alone.tokens, alone.logprobs)
    assert stream.cached_tokens == (59 if cache_prompt else 0)
    assert done.timings.prompt_tokens == 60 - stream.cached_tokens


RARE = [{"repeat_last_n": 1 << power, "repeat_penalty": 1.2} for power in range(7, 12)]
RARE += [{"mirostat": 1}, {"mirostat": 2}, {"top_k": 0}, {"top_k": 100}, {"dry_multiplier": 0.5}, {"samplers": "k"}]


@pytest.mark.slow
def test_rare_samplers_compile_while_other_texts_go_on(llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's thread compiles nothing, few rare samplers are kept, and every text is that of the request alone."""
    monkeypatch.setattr(sampler_pool, "MOST_POOLS", 3)
    with llm.batch_engine(SLOTS, max_waiting=50) as engine:
        engine.warm_up()
        compiled = engine.call(compile_seconds)
        long = engine.submit("the ant", n=-1, temp=0.9, seed=1, ignore_eos=True, context_shift=True)
        samplers, programs = engine._scheduler.executor._samplers, set()
        settings = [{"n": 6, "seed": number, "ignore_eos": True, **one} for number, one in enumerate(RARE[4:9])]
        for one in settings:
            before = len(long.text)
            done = engine.submit("the ant", **one).finish()
            assert done.tokens == llm.generate("the ant", **one).tokens
            assert len(long.text) > before
            programs |= {weakref.ref(pool.caller) for pool in samplers._pools.values() if pool.is_rare}
        long.cancel()
        assert engine.call(compile_seconds) == compiled
        gc.collect()
        assert len(programs) >= len(settings)
        assert sum(kept() is not None for kept in programs) == 3


@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_requests_of_mixed_settings(llm: ml.LLM, seed: int) -> None:
    """More rare samplers than are kept, in any order, some cancelled while theirs is compiled."""
    order = random.Random(seed)
    with llm.batch_engine(SLOTS) as engine:
        settings = [{"n": 4, "seed": order.randrange(3), "temp": 0.8, **order.choice([{}, *RARE])} for _ in range(30)]
        streams = [engine.submit("the ant", **one) for one in settings]
        for stream in (cancelled := order.sample(streams, 5)):
            stream.cancel()
        for one, stream in zip(settings, streams, strict=True):
            done = stream.finish()
            if stream not in cancelled:
                assert done.tokens == llm.generate("the ant", **one).tokens


def usual(order: random.Random, number: int) -> dict[str, object]:
    """Options that compile nothing."""
    chosen: dict[str, object] = {"n": order.choice([0, 1, 3, 9]), "seed": number, "temp": order.choice([0, 0.5, 1.3])}
    more = {
        "top_k": order.choice([1, 5, 40, 64]), "top_p": order.random(), "min_p": order.random() / 4,
        "typical": order.random(), "xtc_probability": order.random(), "repeat_penalty": 1 + order.random() / 2,
        "presence_penalty": order.random(), "frequency_penalty": order.random(), "repeat_last_n": order.randrange(65),
        "logit_bias": [(order.randrange(300), order.uniform(-5, 5))], "ignore_eos": True, "stop": ["a", "north"],
        "grammar": 'root ::= "the " [a-z]+', "n_probs": order.randrange(9), "cache_prompt": False,
    }  # fmt: skip
    return chosen | {name: more[name] for name in order.sample(sorted(more), order.randrange(5))}


@pytest.mark.slow
def test_500_requests_of_mixed_settings_compile_nothing(llm: ml.LLM) -> None:
    """Of any length, one in ten with a rare sampler, one in twenty cancelled."""
    order = random.Random(7)
    with llm.batch_engine(SLOTS, max_waiting=500) as engine:
        engine.warm_up()
        compiled, streams = engine.call(compile_seconds), []
        for number in range(500):
            ids = [order.randrange(3, 300) for _ in range(order.choice([1, 2, 15, 16, 17, 60, CTX - 10]))]
            one = usual(order, number) | (order.choice(RARE) if number % 10 == 3 else {})
            streams.append((ids, one, engine.submit(ids, **one)))
            if number % 20 == 11:
                order.choice(streams)[2].cancel()
            if number % 50 == 49:
                streams[-1][2].finish()
        for place, (ids, one, stream) in enumerate(streams):
            done = stream.finish()
            if place % 25 == 0 and done.reason is not Reason.INTERRUPTED:
                own = {name: value for name, value in one.items() if name != "cache_prompt"}
                assert done.tokens == llm.generate(ids, **own).tokens
        assert engine.call(compile_seconds) == compiled


def test_a_sampler_that_cannot_be_compiled(llm: ml.LLM, engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request fails; the others go on."""

    def compile(self: RareCompilation) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(RareCompilation, "_compile", compile)
    other = engine.submit("the ant", n=20, temp=0, ignore_eos=True)
    with pytest.raises(MemoryError, match="no room"):
        engine.submit("the ant", n=4, repeat_last_n=3000, repeat_penalty=1.1).finish()
    assert len(other.finish().tokens) == 20


def test_generate_many(llm: ml.LLM) -> None:
    done = llm.generate_many(PROMPTS, slots=4, n=6, temp=0)
    assert [one.tokens for one in done] == [llm.generate(prompt, n=6, temp=0).tokens for prompt in PROMPTS]
    assert llm.generate_many([]) == []


@pytest.mark.parametrize("post_sampling_probs", [False, True])
def test_likeliest_tokens(llm: ml.LLM, engine: BatchEngine, post_sampling_probs: bool) -> None:
    """In a batch and alone: the n likeliest in the place of each token, the first one of a greedy text."""
    options = {"n": 3, "temp": 0, "ignore_eos": True, "n_probs": 4, "post_sampling_probs": post_sampling_probs}
    alone = llm.generate(PROMPTS[0], **options)
    together = engine.submit(PROMPTS[0], **options).finish()
    for done in (alone, together):
        assert [top[0].token for top in done.top] == list(done.tokens)
        assert [len(top) for top in done.top] == [1 if post_sampling_probs else 4] * 3
    for mine, other in zip(together.top, alone.top, strict=True):
        assert [each.token for each in mine] == [each.token for each in other]
        np.testing.assert_allclose([each.logprob for each in mine], [each.logprob for each in other], atol=1e-4)
    if not post_sampling_probs:
        np.testing.assert_allclose([top[0].logprob for top in alone.top], alone.logprobs, atol=1e-5)
    piece = next(iter(llm.stream(PROMPTS[0], **options)))
    assert piece.top == alone.top[0] and piece.post_logprob == (0.0 if post_sampling_probs else None)


def test_pieces_arrive_one_by_one(engine: BatchEngine) -> None:
    changes: list[State] = []
    stream = engine.submit(
        "the ant", n=5, temp=0, ignore_eos=True, on_change=lambda stream: changes.append(stream.state)
    )
    pieces = list(stream)
    assert [piece.token for piece in pieces] == list(stream.completion.tokens)
    assert "".join(piece.text for piece in pieces) == stream.text == stream.completion.text
    assert changes[-1] is State.DONE and State.GENERATING in changes
    assert stream.take() == [] and list(stream) == []


def test_a_stop_string_ends_one_text_only(llm: ml.LLM, engine: BatchEngine) -> None:
    options = {"n": 40, "seed": 3, "ignore_eos": True}
    free = llm.generate("the ant", **options)
    word = free.text[5:8]
    stopped, whole = engine.submit("the ant", stop=[word], **options), engine.submit("the ant", **options)
    assert stopped.finish().text == llm.generate("the ant", stop=[word], **options).text
    assert stopped.completion.reason is Reason.WORD and whole.finish().tokens == free.tokens


def test_full_context(llm: ml.LLM, engine: BatchEngine) -> None:
    ids = np.random.default_rng(4).integers(3, 300, CTX - 11).tolist()
    done = engine.submit(ids, temp=0, ignore_eos=True).finish()
    assert done.reason is Reason.LENGTH and len(ids) + len(done.tokens) == CTX
    options = {"n": 30, "temp": 0, "ignore_eos": True, "context_shift": True, "keep": 4}
    shifted = engine.submit(ids, **options)
    assert shifted.finish().tokens == llm.generate(ids, **options).tokens
    assert shifted.is_shifted


def test_a_prompt_that_only_fills_the_cache(engine: BatchEngine) -> None:
    stream = engine.submit("north of the ant", n=0)
    done = stream.finish()
    assert done.tokens == () and done.reason is Reason.LIMIT
    assert stream.read_tokens == stream.prompt_tokens


def test_cancelled_from_another_thread(engine: BatchEngine) -> None:
    streams = [engine.submit("the ant", n=200, temp=0, ignore_eos=True, context_shift=True) for _ in range(SLOTS + 1)]
    next(streams[0])
    for stream in (streams[0], streams[-1]):  # one runs, one waits
        threading.Thread(target=stream.cancel).start()
    done = streams[0].finish()
    assert done.reason is Reason.INTERRUPTED and 0 < len(done.tokens) < 200
    assert streams[-1].finish().tokens == ()
    for stream in streams[1:-1]:
        stream.close()
    assert engine.metrics().processing == 0


def test_refusals(llm: ml.LLM, engine: BatchEngine) -> None:
    with pytest.raises(ContextSizeError, match=f"the prompt has {CTX} tokens, too many for a slot of {CTX}") as caught:
        engine.submit([5] * CTX)
    assert (caught.value.prompt_tokens, caught.value.ctx_size) == (CTX, CTX)
    with pytest.raises(ml.OptionError, match="slot is 4; expected 0 to 3, or None for any"):
        engine.submit("a", slot=SLOTS)
    with pytest.raises(ml.OptionError, match="max_tokens is not an option here; use n"):
        engine.submit("a", max_tokens=3)
    with pytest.raises(ml.ResourceError, match=r"200 slots of 10000128 tokens need .* GiB of cache, but .* are free"):
        llm.batch_engine(200, ctx_size=10**7)
    with pytest.raises(ml.OptionError, match="slots is 0; expected 1 to 256"):
        llm.batch_engine(0)


def test_the_queue_is_bounded(llm: ml.LLM) -> None:
    with llm.batch_engine(SLOTS, max_waiting=2) as engine:
        streams: list[BatchStream] = []
        with pytest.raises(QueueFullError, match="2 requests are waiting, as many as max_waiting allows"):
            for _ in range(SLOTS + 3):
                streams.append(engine.submit("the ant", temp=0, ignore_eos=True, context_shift=True))
        assert 2 <= len(streams) <= SLOTS + 2


def test_close_ends_everything(llm: ml.LLM) -> None:
    engine = llm.batch_engine(SLOTS)
    streams = [engine.submit("the ant", temp=0, ignore_eos=True, context_shift=True) for _ in range(SLOTS + 2)]
    next(streams[0])
    started = time.perf_counter()
    engine.close()
    assert time.perf_counter() - started < 5
    assert {stream.finish().reason for stream in streams} == {Reason.INTERRUPTED}
    assert not [thread for thread in threading.enumerate() if "batch-engine" in thread.name and thread.is_alive()][1:]
    with pytest.raises(ml.ResourceError, match="the batch engine is closed; open another one with"):
        engine.submit("a")
    engine.close()


def test_an_engine_that_is_dropped_ends_its_thread(llm: ml.LLM) -> None:
    before = threading.active_count()
    llm.batch_engine(SLOTS).submit("the ant", n=3).finish()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_requests_from_many_threads(llm: ml.LLM, engine: BatchEngine) -> None:
    alone = {seed: llm.generate("the ant", n=6, seed=seed).tokens for seed in range(4)}
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda seed: engine.submit("the ant", n=6, seed=seed % 4).finish().tokens, range(24))
    assert list(found) == [alone[seed % 4] for seed in range(24)]


def test_an_interrupt_keeps_the_text_so_far(engine: BatchEngine) -> None:
    """Ctrl-C in a notebook while it waits: the stream ends, and the engine goes on."""
    options = {"n": -1, "temp": 0, "ignore_eos": True, "context_shift": True}
    streams = [engine.submit("the ant", **options) for _ in range(2)]
    next(streams[0])
    threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,)).start()
    done = finish_all(streams)
    assert [one.reason for one in done] == [Reason.INTERRUPTED] * 2 and done[0].tokens
    assert engine.submit("the ant", n=2, ignore_eos=True).finish().reason is Reason.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("lfm2", 0), ("granitehybrid", 1e-3), ("qwen3next", 1e-3)])
def test_recurrent_texts_go_on_from_copies(tmp_path: Path, name: str, tolerance: float) -> None:
    """States that cannot go back: prompts with the same beginning, alone and from snapshots, give the same texts.

    Mamba-2 and Gated DeltaNet sum over blocks of a chunk, so that the cut of a prompt changes the last bits.
    """
    llm = ml.load(write_tiny(tmp_path / "m.gguf", name), ctx_size=CTX, progress=False)
    rng = np.random.default_rng(0)
    shared = rng.integers(3, 299, 40).tolist()
    prompts = [shared + rng.integers(3, 299, count).tolist() for count in (1, 5, 20)]
    options = {"n": 8, "seed": 1, "temp": 0.9, "ignore_eos": True}
    alone = [llm.generate(prompt, **options) for prompt in prompts]
    with llm.batch_engine(2) as engine:
        for expected_cached in ([0, 40, 40], [40, 44, 59]):
            for prompt, one, cached in zip(prompts, alone, expected_cached, strict=True):
                stream = engine.submit(prompt, **options)
                assert stream.finish().tokens == one.tokens and stream.cached_tokens == cached
                np.testing.assert_allclose(stream.completion.logprobs, one.logprobs, rtol=0, atol=tolerance)
        assert engine.metrics().counters.ram_hits >= 3
