"""Sessions of a leader: every call of the worker's table, in orders that work."""

from collections.abc import Sequence

import numpy as np
from tiny_models import VOCAB

from minillama.parallel.workers.wire import Message
from minillama.sampling.mersenne_twister import seed_words
from minillama.sampling.sampled_token import mask_words

CAPACITY, PADDED = 512, 32  # as in the tests of workers, so that both compile the same programs
SEEDS, WINDOW = seed_words(1)[None], np.zeros((1, 64), np.int32)
NEW = {"types": ["f32", "f32"]}


def text_session() -> list[Message]:
    """A text from its prompt on, with scores and another cache."""
    padded, twelve = _row(range(PADDED)), _numbers(12)
    return [
        Message("new_cache", {"number": 1, "capacity": CAPACITY, "batch": 1, **NEW}),
        Message("new_cache", {"number": 2, "capacity": PADDED, "batch": 1, **NEW}),
        _chain(3, 0.0),
        _call("prefill", 4, 1, padded, twelve),  # logits 4, cache 5
        _call("start", 7, 3, SEEDS, WINDOW, twelve),  # state 7
        _call("generate", 8, 5, 3, 7, _row([5]), None, None),  # draft 8, state 9, cache 10
        _call("hidden", 11, 2, padded, None),  # states 11, cache 12
        _call("logits", 13, 11),
        _call("nll", 14, 11, _row(range(PADDED)), 0),
        _call("truncate", 15, 10, _numbers(4)),
        _call("gather_rows", 16, 15, _numbers(0)),
        _call("resize", 17, 16, CAPACITY),
        _call("slide", 18, 17, _numbers(0)),
        _call("checkpoint", 19, 18),
        _call("restore", 20, 18, 19, _numbers(2)),
        _call("read", 21, 20, padded, twelve),  # states 21, cache 22
        Message("fetch", {"number": 23, "value": 13, "forget": [13, 14]}),
        Message("ready", {"number": 24, "value": 8}),
    ]


def slot_session() -> list[Message]:
    """Continuous batching: a text joins one of two slots, goes on, is copied, saved and loaded."""
    rows, masks = _numbers(0, 2), np.full((2, mask_words(VOCAB)), 2**32 - 1, np.uint32)  # row 2 stands for no text
    return [
        *_begin_slots(0.7),
        _call("decode_slots", 11, 7, 10, rows, _numbers(12, 0)),  # logits 11, cache 12
        _call("draw_slots", 13, 8, 9, 10, rows, 11, masks),  # draft 13, states 14, latest 15
        _call("copy_slot", 16, 12, _numbers(0), _numbers(1), _numbers(12)),
        _call("save_slot", 17, 16, _numbers(0), 16),
        _call("load_slot", 18, 16, 17, _numbers(1)),
        _call("slide_slot", 19, 18, _numbers(1), _numbers(0)),
        Message("ready", {"number": 20, "value": 19, "forget": [13, 17]}),
    ]


def draft_session() -> list[Message]:
    """Guesses of a draft model, and drafts that are verified."""
    rows, ids = _numbers(0, 1), np.array([[5, 6, 7, 8], [9, 10, 0, 0]], np.int32)
    return [
        *_begin_slots(0.0),
        _call("guess_first", 11, 7, 10, ids, _numbers(4, 2), rows, _numbers(12, 0)),  # draft 11, latest 12, cache 13
        _call("guess_next", 14, 13, 12, rows, _numbers(16, 2)),  # draft 14, latest 15, cache 16
        _call("run_drafts", 17, 16, ids, rows, _numbers(12, 0)),  # states 17, cache 18
        _call("verify_slots", 19, 8, 9, 15, rows, 17, ids, _numbers(3, 1)),  # draft 19, states 20, latest 21
        Message("ready", {"number": 22, "value": 18}),
        Message("fetch", {"number": 23, "value": 21}),
    ]


SESSIONS = (text_session, slot_session, draft_session)


def _begin_slots(temp: float) -> list[Message]:
    """Two slots, the first one with a text: chains 8, states 9, latest 10, cache 7."""
    latest = np.ones((2, 1), np.int32)
    return [
        Message("new_cache", {"number": 1, "capacity": 2 * PADDED, "batch": 2, **NEW}),
        _chain(3, temp, is_shared=True),
        _call("new_samplers", 4, 3, 2),  # chains 4, states 5
        _call("prefill_slot", 6, 1, _row(range(16)), _numbers(12), _numbers(0), _numbers(0)),  # states 6, cache 7
        _call("join_slot", 8, 4, 5, latest, 3, SEEDS, WINDOW, _numbers(12), _numbers(0), _row([5])),
    ]


def _chain(number: int, temp: float, **values: object) -> Message:
    sampling = {"logit_bias": [[5, 1.0], [7, None]], "temp": temp, "seed": 1}
    return Message("chain", {"number": number, "sampling": sampling, **values})


def _call(op: str, number: int, *args: object) -> Message:
    named = ["array" if isinstance(arg, np.ndarray) else arg for arg in args]
    return Message(op, {"number": number, "args": named}, tuple(arg for arg in args if isinstance(arg, np.ndarray)))


def _numbers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def _row(numbers: Sequence[int]) -> np.ndarray:
    return np.array([numbers], np.int32)
