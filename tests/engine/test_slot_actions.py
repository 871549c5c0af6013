"""Slots that are saved, restored and erased: the restored text is the one that was saved."""

from collections.abc import Iterator

import numpy as np
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.batch_errors import SlotBusyError
from minillama.errors import FormatError

CTX, SLOTS = 256, 4  # as in test_batch_engine: each number of slots compiles programs of its own
PROMPT = "the ant sat on the north end "


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchEngine]:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama")
    llm = ml.load(path, ctx_size=CTX, progress=False, cache_type_k="f32", cache_type_v="f32")
    with llm.batch_engine(SLOTS) as engine:
        yield engine


def test_a_restored_slot_goes_on_as_the_saved_one(engine: BatchEngine) -> None:
    options = {"n": 8, "seed": 3, "temp": 0.9, "ignore_eos": True}
    first = engine.submit(PROMPT, slot=1, **options).finish()
    tokens, saved = engine.save_slot(1)
    arrays = [np.array(array) for array in saved.arrays]
    assert tokens == tuple(tokens[: first.prompt_tokens]) + first.tokens[:-1]
    assert engine.erase_slot(1) == len(tokens)
    assert engine.save_slot(1)[0] == ()
    engine.restore_slot(2, tokens, arrays)
    stream = engine.submit(tokens, slot=2, **options)
    restored = stream.finish()
    assert stream.cached_tokens == len(tokens) - 1
    alone = engine.submit(tokens, slot=3, cache_prompt=False, **options)
    assert restored.tokens == alone.finish().tokens
    assert alone.cached_tokens == 0


def test_a_busy_slot_is_left_alone(engine: BatchEngine) -> None:
    with engine.submit(PROMPT, slot=0, n=-1, ignore_eos=True, context_shift=True) as stream:
        next(stream)
        for action in (engine.save_slot, engine.erase_slot):
            with pytest.raises(SlotBusyError):
                action(0)


def test_arrays_of_other_shapes_are_refused(engine: BatchEngine) -> None:
    arrays = [array[..., :1] for array in engine.slot_like(3).arrays]
    with pytest.raises(FormatError):
        engine.restore_slot(0, (1, 2, 3), arrays)
