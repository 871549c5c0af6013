"""The programs with a batch axis: B texts at once give what each of them gives alone."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_processes import Check
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Kind
from minillama.engine.backends.programs.program_table import ALL_PROGRAMS
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.sampling import Sampling
from minillama.sampling.mersenne_twister import seed_words

EXACT = CacheTypes(CacheType.F32, CacheType.F32)
TEXTS = ([5, 17, 250, 3, 99], [41, 7], [8, 120, 33, 34, 35, 36, 37])
SEEDS = (1, 2, 3)
SAMPLINGS = [Sampling(temp=0.0), Sampling(temp=0.9, repeat_penalty=1.3), Sampling(temp=1.0, mirostat=2)]


@dataclass
class Batch:
    """The state of some texts between calls, as a scheduler would hold it."""

    backend: Any
    chain: Any
    cache: Any
    state: Any = None
    last: Any = None  # the sampled tokens that are not in the cache yet, [B, 1]

    @staticmethod
    def begin(llm: ml.LLM, texts: list[list[int]], seeds: list[int], sampling: Sampling) -> "Batch":
        """Prefill texts of different lengths; their last tokens are to be run."""
        backend, size = llm.backend, 8
        self = Batch(backend, backend.chain(sampling), backend.new_cache(64, EXACT, len(texts)))
        ids = np.array([text + [0] * (size - len(text)) for text in texts], np.int32)
        n_valid = np.array([len(text) for text in texts], np.int32)
        _, self.cache = backend.call(text_programs.prefill, self.cache, ids, n_valid - np.int32(1))
        recent = np.zeros((len(texts), self.chain.window), np.int32)
        for row, text in enumerate(texts):
            recent[row, : len(text)] = text
        words = np.stack([seed_words(seed) for seed in seeds])
        self.state = backend.call(text_programs.start, self.chain, words, recent, n_valid)
        self.last = np.array([[text[-1]] for text in texts], np.int32)
        return self

    def step(self, draft: np.ndarray | None = None, n_draft: list[int] | None = None) -> tuple[np.ndarray, ...]:
        """Run the last tokens, and a draft [B, T - 1] after them; the numbers that are sampled."""
        ids, count = self.last, None
        if draft is not None:
            ids, count = np.concatenate([np.asarray(self.last), draft], axis=1), np.array(n_draft, np.int32)
        result, self.state, self.cache = self.backend.call(
            text_programs.generate, self.cache, self.chain, self.state, ids, count, None
        )
        counts = np.ones(len(self.last), int) if result.count is None else np.asarray(result.count)
        self.last = np.asarray(result.tokens)[np.arange(len(counts)), counts - 1][:, None].astype(np.int32)
        return np.asarray(result.tokens), np.asarray(result.logprobs), counts


def check_batch(path: Path, devices: int, sampling: Sampling) -> None:
    llm = ml.load(path, tensor_parallel=devices, progress=False, cache_type_k="f32", cache_type_v="f32")
    texts = [list(text) for text in TEXTS]
    together = Batch.begin(llm, texts, list(SEEDS), sampling)
    alone = [Batch.begin(llm, [text], [seed], sampling) for text, seed in zip(texts, SEEDS, strict=True)]
    for _ in range(5):
        tokens, logprobs, _ = together.step()
        for row, one in enumerate(alone):
            found = one.step()
            assert found[0][0].tolist() == tokens[row].tolist()
            np.testing.assert_allclose(found[1][0], logprobs[row], atol=1e-4)
    drafts = [[11, 12, 13], [14, 15, 16], [17, 18, 19]]  # wrong ones: a single token is sampled after each text
    right = [one.step()[0][0, 0] for one in alone]
    tokens, logprobs, counts = together.step(np.array([[right[0], 12, 13], *drafts[1:]], np.int32), [1, 3, 0])
    assert counts.tolist() == [2, 1, 1] and tokens[:, 0].tolist() == right
    assert np.asarray(together.cache.length).tolist() == [
        len(text) + 4 + n for text, n in zip(TEXTS, counts, strict=True)
    ]
    second = alone[0].step()  # the text whose draft was right is one token ahead
    assert second[0][0, 0] == tokens[0, 1]
    np.testing.assert_allclose(second[1][0, 0], logprobs[0, 1], atol=1e-4)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "penalties", "mirostat"])
def test_texts_together_are_texts_alone(tmp_path: Path, sampling: Sampling) -> None:
    check_batch(write_tiny(tmp_path / "m.gguf", "llama"), 1, sampling)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "gemma2", "gemma3", "glm4"])
def test_of_other_models(tmp_path: Path, name: str) -> None:
    check_batch(write_tiny(tmp_path / "m.gguf", name), 1, SAMPLINGS[1])


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "penalties", "mirostat"])
def test_over_devices(apart: Check, tmp_path: Path, sampling: Sampling) -> None:
    apart(check_batch, write_tiny(tmp_path / "m.gguf", "llama"), 2, sampling)


def test_every_program_declares_what_it_takes_and_gives() -> None:
    """The table is what the worker checks a leader's calls with."""
    for name, program in ALL_PROGRAMS.items():
        assert program.name == name
        assert len(inspect.signature(program.function).parameters) == 1 + len(program.takes), "the model comes first"
        assert Kind.CACHE not in program.gives or Kind.CACHE in program.takes
