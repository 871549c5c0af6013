"""Texts in slots against lone sessions: the same tokens and, with kernels, the same bits in any company."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from device_processes import Check
from gguf import GGMLQuantizationType
from test_remote_backend import Pair
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.backends.local import _compiled
from minillama.engine.backends.programs.program_table import ALL_PROGRAMS
from minillama.engine.backends.remote import RemoteBackend
from minillama.engine.batching.slot_executor import SlotExecutor
from minillama.sampling import Sampling

SLOTS, CAPACITY, CHUNK = 4, 128, 32
USUAL = (Sampling(temp=0.9), Sampling(temp=0.7, repeat_penalty=1.3, repeat_last_n=100))  # of two structures
SAMPLINGS = (*USUAL, Sampling(mirostat=2))  # and a rare one
STEPS = 6
Numbers = list[tuple[int, float]]  # tokens with their log-probabilities


def prompt(number: int) -> list[int]:
    """One of some prompts of different lengths."""
    return np.random.default_rng(number).integers(3, 299, (5, 40, 70, 17, 33)[number]).tolist()


def alone(llm: ml.LLM, ids: list[int], sampling: Sampling, seed: int) -> Numbers:
    """The text of a session: the reference implementation."""
    session, chain = llm.session(), llm.backend.chain(sampling)
    list(session.prefill(ids[:-1]))
    state, token, found = session.start(chain, seed, ids), ids[-1], []
    for _ in range(STEPS + 1):
        draft, state = session.generate(chain, state, token)
        session.commit(token)
        token = int(np.asarray(draft.tokens)[0, 0])
        found.append((token, float(np.asarray(draft.logprobs)[0, 0])))
    return found


@dataclass
class Text:
    """A text on its way through a slot."""

    number: int
    sampling: int
    slot: int
    done: int = 0  # tokens in the cache
    sampled: Numbers = field(default_factory=list)

    @property
    def is_generating(self) -> bool:
        return self.done >= len(prompt(self.number)) - 1


class Crowd:
    """Texts that come and go in the slots of an executor."""

    def __init__(self, executor: SlotExecutor, chains: list[object]) -> None:
        self.executor, self.chains = executor, chains
        self.texts: dict[int, Text] = {}  # by slot
        self.ended: list[Text] = []

    def chunk(self, text: Text, size: int) -> None:
        """Run the next tokens of a prompt; the text joins when only the last one is left."""
        ids = prompt(text.number)
        part = ids[text.done : -1][:size]
        self.executor.prefill(text.slot, text.done, part)
        text.done += len(part)
        if text.is_generating:
            self.executor.join(text.slot, self.chains[text.sampling], text.number, ids)

    def step(self, texts: list[Text]) -> None:
        draw = self.executor.step([text.slot for text in texts], [text.done for text in texts])
        for text, found in zip(texts, self.executor.read(draw), strict=True):
            text.done += 1
            text.sampled.append((found.token, found.logprob))
            if len(text.sampled) > STEPS:
                self.ended.append(self.texts.pop(text.slot))


def programs_compiled() -> dict[str, int]:
    return {name: _compiled(program).jitted._cache_size() for name, program in ALL_PROGRAMS.items()}


@dataclass(frozen=True)
class Case:
    """A model with its executor, and what each prompt gives alone."""

    llm: ml.LLM
    executor: SlotExecutor
    expected: dict[tuple[int, int], Numbers]


def case_of(path: Path) -> Case:
    llm = ml.load(path, progress=False, ctx_size=CAPACITY)
    executor = SlotExecutor(llm.backend, SLOTS, CAPACITY, CHUNK, llm.cache_types)
    for sampling in USUAL:
        executor.warm_up(sampling)
    wanted = [(number, sampling) for number in range(5) for sampling in range(len(SAMPLINGS))]
    return Case(llm, executor, {key: alone(llm, prompt(key[0]), SAMPLINGS[key[1]], key[0]) for key in wanted})


def check_on_devices(path: Path, options: dict[str, object]) -> None:
    """Texts on several devices write what lone sessions write there."""
    check_few(ml.load(path, progress=False, ctx_size=CAPACITY, cache_type_k="f32", cache_type_v="f32", **options))


def check_few(llm: ml.LLM) -> None:
    """Two texts in three slots, each with a beginning that was copied, saved and loaded."""
    executor = SlotExecutor(llm.backend, 3, CAPACITY, CHUNK, llm.cache_types)
    chain, numbers = llm.backend.chain(SAMPLINGS[1]), (0, 3)
    for slot, number in enumerate(numbers):
        executor.prefill(slot, 0, prompt(number)[:4])
        executor.copy(slot, 2, 4)
        saved = executor.save(2, 4)
        executor.prefill(slot, 0, prompt(1)[:20])
        executor.load(slot, saved)
        executor.prefill(slot, 4, prompt(number)[4:-1])
        executor.join(slot, chain, number, prompt(number))
    positions = [len(prompt(number)) - 1 for number in numbers]
    draws = [executor.step([1, 0], [positions[1] + step, positions[0] + step]) for step in range(STEPS + 1)]
    found = [executor.read(draw)[::-1] for draw in draws]  # all steps were under way before the first one is read
    for place, number in enumerate(numbers):
        mine = [row[place] for row in found]
        expected = alone(llm, prompt(number), SAMPLINGS[1], number)
        assert [one.token for one in mine] == [token for token, _ in expected]
        np.testing.assert_allclose([one.logprob for one in mine], [logprob for _, logprob in expected], atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen35", "granitehybrid", "lfm2", "deepseek2"])
def test_of_other_layers(tmp_path: Path, name: str) -> None:
    check_on_devices(write_tiny(tmp_path / "m.gguf", name), {})


@pytest.mark.parametrize("name", ["llama", "qwen35"])
@pytest.mark.parametrize("options", [{"tensor_parallel": 2}, {"split_mode": "layer"}], ids=["mesh", "pipeline"])
def test_over_devices(apart: Check, tmp_path: Path, name: str, options: dict[str, object]) -> None:
    apart(check_on_devices, write_tiny(tmp_path / "m.gguf", name), options)


@contextmanager
def led_by(llm: ml.LLM) -> Iterator[ml.LLM]:
    """The same model, computed by a worker."""
    pair = Pair(llm.backend)
    try:
        yield replace(llm, backend=RemoteBackend(pair, llm.config))
    finally:
        pair.close()


def test_on_a_worker(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.gguf", "llama")
    with led_by(ml.load(path, progress=False, ctx_size=512, cache_type_k="f32", cache_type_v="f32")) as llm:
        check_few(llm)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama", GGMLQuantizationType.Q8_0))


def come_and_go(case: Case, seed: int) -> None:
    """Random chunks, joins and steps; every text must be as alone, and nothing is compiled."""
    order = random.Random(seed)
    chains = [case.llm.backend.chain(sampling, is_shared=True) for sampling in SAMPLINGS]
    crowd = Crowd(case.executor, chains)
    waiting = [(order.randrange(5), order.randrange(len(SAMPLINGS))) for _ in range(order.randrange(1, 8))]
    texts, compiled = len(waiting), programs_compiled()
    while waiting or crowd.texts:
        free = sorted(set(range(SLOTS)) - set(crowd.texts))
        if waiting and free and order.random() < 0.7:
            text = Text(*waiting.pop(), order.choice(free))
            crowd.texts[text.slot] = text
        reading = [text for text in crowd.texts.values() if not text.is_generating]
        if reading and order.random() < 0.7:
            crowd.chunk(order.choice(reading), order.randint(1, CHUNK))
        if rows := [text for text in crowd.texts.values() if text.is_generating]:
            crowd.step(order.sample(rows, len(rows)))
    assert len(crowd.ended) == texts
    for text in crowd.ended:
        assert text.sampled == case.expected[text.number, text.sampling]
    assert programs_compiled() == compiled


@pytest.mark.parametrize("seed", range(8))
def test_texts_come_and_go(case: Case, seed: int) -> None:
    come_and_go(case, seed)


def test_a_prefix_is_copied_saved_and_loaded(case: Case) -> None:
    executor, ids, seed = case.executor, prompt(2), 2
    chain, compiled = case.llm.backend.chain(SAMPLINGS[0], is_shared=True), programs_compiled()
    executor.prefill(0, 0, ids[:50])
    saved = executor.save(0, 50)
    executor.copy(0, 3, 50)
    executor.prefill(0, 0, prompt(1))  # what comes to the slot later changes neither
    executor.load(1, saved)
    for slot in (3, 1):
        executor.prefill(slot, 50, ids[50:-1])
        executor.join(slot, chain, seed, ids)
        (first,) = executor.read(executor.step([slot], [len(ids) - 1]))
        assert (first.token, first.logprob) == case.expected[2, 0][0]
    assert saved.nbytes >= 50 * case.llm.config.block_count * 2 * 2 * 16
    assert programs_compiled() == compiled


def test_the_last_positions_of_a_slot(case: Case) -> None:
    """Padding goes beyond the capacity, and to no other slot."""
    executor = case.executor
    ids = np.random.default_rng(9).integers(3, 299, CAPACITY).tolist()
    executor.prefill(2, 0, prompt(0))
    whole = executor.prefill(1, 0, ids)
    for start in (CAPACITY - 1, CAPACITY - 7, CAPACITY - 20):
        np.testing.assert_array_equal(np.asarray(executor.prefill(1, start, ids[start:])), np.asarray(whole))
    chain = case.llm.backend.chain(SAMPLINGS[0], is_shared=True)
    executor.join(2, chain, 0, prompt(0))
    (first,) = executor.read(executor.step([2], [len(prompt(0)) - 1]))
    assert (first.token, first.logprob) == case.expected[0, 0][0]
