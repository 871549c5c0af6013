"""Hostile numbers of a leader: the worker refuses each with one line, and the programs compute within their buffers."""

import numpy as np
import pytest
from tiny_models import VOCAB, write_tiny

import minillama as ml
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Kind
from minillama.engine.backends.programs.program_table import ALL_PROGRAMS
from minillama.engine.backends.remote_calls import remote_checks
from minillama.engine.backends.remote_calls.remote_checks import CHECKS, check_new_cache, check_shares, in_range
from minillama.engine.backends.remote_calls.slot_checks import SLOT_CHECKS
from minillama.engine.backends.remote_worker import RemoteWorker, _open
from minillama.errors import FormatError, OptionError, ResourceError
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.parallel.workers.wire import Message
from minillama.sampling.mersenne_twister import seed_words
from minillama.sampling.sampled_token import mask_words
from minillama.sampling.sampler_order import MOST_STAGES

# Shapes and types are those of test_remote_backend.py, so that both share compiled programs.
CAPACITY, PADDED, FAR = 512, 32, 2_000_000_000
TYPES = read_cache_types("f32", "f32")
SEEDS, WINDOW, LATEST = seed_words(1)[None], np.zeros((1, 64), np.int32), np.ones((2, 1), np.int32)
MASK = np.ones((1, mask_words(VOCAB)), np.uint32)

# The numbers of the worker's values. A program's results have consecutive ones.
CACHE, SMALL, CHAIN, LOGITS, USED, STATE, LATER, NEXT_STATE, HELD, HIDDEN, FULL, SAMPLERS, STATES = range(1, 14)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers], np.int32)


def call(op: str, *args: object, **values: object) -> Message:
    """A call as `RemoteBackend` sends it."""
    arrays = tuple(arg for arg in args if isinstance(arg, np.ndarray))
    named = ["array" if isinstance(arg, np.ndarray) else arg for arg in args]
    return Message(op, {"number": 50, "args": named, **values}, arrays)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama")
    return ml.load(path, ctx_size=CAPACITY, progress=False, cache_type_k="f32", cache_type_v="f32")


@pytest.fixture(scope="module")
def worker(llm: ml.LLM) -> RemoteWorker:
    """A worker that has run a prompt of 12 tokens, sampled two, and computed hidden states."""
    found = RemoteWorker(llm.backend, None)
    new = {"types": ["f32", "f32"], "batch": 1}
    padded = row(*range(PADDED))
    for message in (
        Message("new_cache", {"number": CACHE, "capacity": CAPACITY, **new}),
        Message("new_cache", {"number": SMALL, "capacity": PADDED, **new}),
        Message("chain", {"number": CHAIN, "sampling": {"logit_bias": [], "temp": 0.0}}),
        Message("prefill", {"number": LOGITS, "args": [CACHE, "array", "array"]}, (padded, whole(12))),
        Message("start", {"number": STATE, "args": [CHAIN, *["array"] * 3]}, (SEEDS, WINDOW, whole(12))),
        Message("generate", {"number": LATER, "args": [USED, CHAIN, STATE, "array", None, None]}, (row(1),)),
        Message("hidden", {"number": HIDDEN, "args": [SMALL, "array", None]}, (padded,)),
        Message("new_samplers", {"number": SAMPLERS, "args": [CHAIN, 2]}),
    ):
        found.obey(message)
    return found


NEW = SEEDS, WINDOW, whole(1)  # of a sampler
HOSTILE = {
    "a cache of no positions": call("new_cache", types=["f16", "f16"], capacity=0, batch=1),
    "a cache of -1 positions": call("new_cache", types=["f16", "f16"], capacity=-1, batch=1),
    "a cache of too many": call("new_cache", types=["f16", "f16"], capacity=2**62, batch=1),
    "a cache of no texts": call("new_cache", types=["f32", "f32"], capacity=64, batch=0),
    "a cache of -1 texts": call("new_cache", types=["f32", "f32"], capacity=64, batch=-1),
    "True texts": call("new_cache", types=["f32", "f32"], capacity=64, batch=True),
    "1e300 positions": call("new_cache", types=["f16", "f16"], capacity=1e300, batch=1),
    "a length after the cache": call("truncate", HELD, whole(CAPACITY + 1)),
    "a far length": call("truncate", HELD, whole(FAR)),
    "a negative length": call("truncate", HELD, whole(-1)),
    "a far negative length": call("truncate", HELD, whole(-FAR)),
    "two lengths": call("truncate", HELD, whole(1, 1)),
    "no length": call("truncate", HELD, whole()),
    "None as length": call("truncate", HELD, None),
    "no valid token": call("prefill", HELD, row(1, 2), whole(0)),
    "negative valid tokens": call("prefill", HELD, row(1, 2), whole(-100_000)),
    "more valid tokens than ids": call("prefill", HELD, row(1, 2), whole(3)),
    "valid tokens of two texts": call("prefill", HELD, row(1, 2), whole(1, 1)),
    "None valid tokens": call("prefill", HELD, row(1, 2), None),
    "a negative token": call("prefill", HELD, row(1, -1), whole(2)),
    "a token after the vocabulary": call("prefill", HELD, row(1, VOCAB), whole(2)),
    "ids of two texts": call("prefill", HELD, np.ones((2, 2), np.int32), whole(1)),
    "ids of no text": call("prefill", HELD, np.ones((0, 2), np.int32), whole()),
    "no ids": call("prefill", HELD, np.ones((1, 0), np.int32), whole(1)),
    "more ids than room": call("prefill", HELD, np.ones((1, CAPACITY - 12), np.int32), whole(1)),
    "no valid token to read": call("read", HELD, row(1, 2), whole(0)),
    "a negative token to read": call("read", HELD, row(1, -1), whole(2)),
    "more ids to read than room": call("read", HELD, np.ones((1, CAPACITY - 12), np.int32), whole(1)),
    "more hidden ids than room": call("hidden", HELD, np.ones((1, CAPACITY - 12), np.int32), None),
    "hidden ids in a full cache": call("hidden", FULL, row(1), None),
    "a hidden negative token": call("hidden", HELD, row(-FAR), None),
    "logits as hidden states": call("logits", LOGITS),
    "a cache as hidden states": call("logits", HELD),
    "logits to score": call("nll", LOGITS, row(1), 0),
    "a negative first state": call("nll", HIDDEN, row(1), -1),
    "a far first state": call("nll", HIDDEN, row(1), FAR),
    "a first state too late": call("nll", HIDDEN, row(1), PADDED),
    "a huge first state": call("nll", HIDDEN, row(1), 10**40),
    "a negative target": call("nll", HIDDEN, row(-1), 0),
    "a target after the vocabulary": call("nll", HIDDEN, row(VOCAB), 0),
    "more targets than states": call("nll", HIDDEN, np.ones((1, PADDED + 1), np.int32), 0),
    "targets of two texts": call("nll", HIDDEN, np.ones((2, 2), np.int32), 0),
    "two tokens without a draft": call("generate", HELD, CHAIN, NEXT_STATE, row(1, 2), None, None),
    "a draft of all tokens": call("generate", HELD, CHAIN, NEXT_STATE, row(1, 2), whole(2), None),
    "a far draft": call("generate", HELD, CHAIN, NEXT_STATE, row(0, 0), whole(FAR), None),
    "a negative draft": call("generate", HELD, CHAIN, NEXT_STATE, row(1, 2), whole(-1), None),
    "a draft of a negative token": call("generate", HELD, CHAIN, NEXT_STATE, row(1, -2), whole(1), None),
    "a chain as state": call("generate", HELD, CHAIN, CHAIN, row(1), None, None),
    "a wide window": call("start", CHAIN, SEEDS, np.zeros((1, 65), np.int32), whole(1)),
    "a narrow window": call("start", CHAIN, SEEDS, np.zeros((1, 0), np.int32), whole(0)),
    "a window of two texts": call("start", CHAIN, SEEDS, np.zeros((2, 64), np.int32), whole(1)),
    "more recent tokens than the window": call("start", CHAIN, SEEDS, WINDOW, whole(65)),
    "a negative number of recent tokens": call("start", CHAIN, SEEDS, WINDOW, whole(-1)),
    "a negative recent token": call("start", CHAIN, SEEDS, WINDOW - 5, whole(1)),
    "a recent token after the vocabulary": call("start", CHAIN, SEEDS, WINDOW + FAR, whole(1)),
    "masks of two texts": call("generate", HELD, CHAIN, NEXT_STATE, row(1), None, MASK.repeat(2, axis=0)),
    "a mask of a word too many": call("generate", HELD, CHAIN, NEXT_STATE, row(1), None, np.ones((1, 11), np.uint32)),
    "a mask of no token": call("generate", HELD, CHAIN, NEXT_STATE, row(1), None, 0 * MASK),
    "a mask with a draft": call("generate", HELD, CHAIN, NEXT_STATE, row(1, 2), whole(1), MASK),
    "a mask of signed words": call("generate", HELD, CHAIN, NEXT_STATE, row(1), None, MASK.astype(np.int32)),
    "two seeds": call("start", CHAIN, np.repeat(SEEDS, 2, axis=0), WINDOW, whole(1)),
    "samplers of no text": call("start", CHAIN, SEEDS[:0], WINDOW[:0], whole()),
    "a smaller cache": call("resize", HELD, CAPACITY - 1),
    "a negative cache": call("resize", HELD, -1),
    "a huge cache": call("resize", HELD, 2**40),
    "a row after the texts": call("gather_rows", HELD, whole(0, 1)),
    "a negative row": call("gather_rows", HELD, whole(-1)),
    "a far row to gather": call("gather_rows", HELD, whole(FAR)),
    "no rows": call("gather_rows", HELD, whole()),
    "None as rows": call("gather_rows", HELD, None),
    "a window before the text": call("slide", HELD, whole(-1)),
    "a window after the cache": call("slide", HELD, whole(FAR)),
    "windows of two texts": call("slide", HELD, whole(0, 0)),
    "None as windows": call("slide", HELD, None),
    "too many valid tokens": call("hidden", HELD, row(1, 2), whole(3)),
    "a negative number of valid tokens": call("hidden", HELD, row(1, 2), whole(-1)),
    "a checkpoint of other texts": call("restore", HELD, HELD, whole(0, 0)),
    "a checkpoint after the cache": call("restore", HELD, HELD, whole(FAR)),
    "a chain as checkpoint": call("restore", HELD, CHAIN, whole(0)),
    "a cache that a program has taken over": call("prefill", CACHE, row(1), whole(1)),
    "a state that a program has taken over": call("generate", HELD, CHAIN, STATE, row(1), None, None),
    "a chunk of a far slot": call("prefill_slot", HELD, row(1, 2), whole(1), whole(2), whole(0)),
    "a chunk of a negative slot": call("prefill_slot", HELD, row(1, 2), whole(1), whole(-1), whole(0)),
    "a chunk after the slot": call("prefill_slot", HELD, row(1, 2), whole(1), whole(0), whole(CAPACITY - 1)),
    "a chunk before the slot": call("prefill_slot", HELD, row(1, 2), whole(1), whole(0), whole(-1)),
    "a chunk of no valid token": call("prefill_slot", HELD, row(1, 2), whole(0), whole(0), whole(0)),
    "a far row": call("decode_slots", HELD, row(1), whole(2), whole(0)),
    "a row at a negative position": call("decode_slots", HELD, row(1), whole(0), whole(-1)),
    "a row after the slot": call("decode_slots", HELD, row(1), whole(0), whole(CAPACITY)),
    "rows without positions": call("decode_slots", HELD, row(1), whole(0, 1), whole(0)),
    "no rows of slots": call("decode_slots", HELD, row(1), whole(), whole()),
    "latest tokens of two slots": call("decode_slots", HELD, np.ones((2, 1), np.int32), whole(0), whole(0)),
    "a latest token after the vocabulary": call("decode_slots", HELD, row(VOCAB), whole(0), whole(0)),
    "logits as latest tokens": call("decode_slots", HELD, LOGITS, whole(0), whole(0)),
    "a chain as samplers": call("draw_slots", CHAIN, NEXT_STATE, row(1), whole(0), LOGITS, None),
    "a draw of a far slot": call("draw_slots", SAMPLERS, STATES, LATEST, whole(3), LOGITS, None),
    "a draw of two rows of one": call("draw_slots", SAMPLERS, STATES, LATEST, whole(0, 1), LOGITS, None),
    "a draw for three slots of two": call(
        "draw_slots", SAMPLERS, STATES, np.ones((3, 1), np.int32), whole(0), LOGITS, None
    ),
    "a draw from hidden states": call("draw_slots", SAMPLERS, STATES, LATEST, whole(0), HIDDEN, None),
    "a new sampler of a far slot": call("join_slot", SAMPLERS, STATES, LATEST, CHAIN, *NEW, whole(3), row(1)),
    "a new sampler of two slots": call("join_slot", SAMPLERS, STATES, LATEST, CHAIN, *NEW, whole(0, 1), row(1)),
    "a new sampler among none": call("join_slot", CHAIN, STATES, LATEST, CHAIN, *NEW, whole(0), row(1)),
    "two tokens of a slot": call("join_slot", SAMPLERS, STATES, LATEST, CHAIN, *NEW, whole(0), row(1, 2)),
    "a token of a slot after the vocabulary": call(
        "join_slot", SAMPLERS, STATES, LATEST, CHAIN, *NEW, whole(0), row(VOCAB)
    ),
    "a guess after the slot": call("guess_first", HELD, row(1), row(1, 2), whole(1), whole(0), whole(CAPACITY - 1)),
    "a guess of a far slot": call("guess_first", HELD, row(1), row(1, 2), whole(1), whole(2), whole(0)),
    "a guess after no token": call("guess_first", HELD, row(1), row(1, 2), whole(0), whole(0), whole(0)),
    "a guess after a token that is none": call("guess_first", HELD, row(VOCAB), row(1), whole(1), whole(0), whole(0)),
    "a next guess of a far slot": call("guess_next", HELD, row(1), whole(2), whole(0)),
    "a next guess after the slot": call("guess_next", HELD, row(1), whole(0), whole(CAPACITY)),
    "a next guess after a token that is none": call("guess_next", HELD, row(-1), whole(0), whole(0)),
    "a draft after the slot": call("run_drafts", HELD, row(1, 2), whole(0), whole(CAPACITY - 1)),
    "a draft of a far slot": call("run_drafts", HELD, row(1, 2), whole(2), whole(0)),
    "a draft of a token that is none": call("run_drafts", HELD, row(1, VOCAB), whole(0), whole(0)),
    "a draft longer than its ids": call(
        "verify_slots", SAMPLERS, STATES, LATEST, whole(0), HIDDEN, row(*[1] * 16), whole(16)
    ),
    "a draft of -1 tokens": call("verify_slots", SAMPLERS, STATES, LATEST, whole(0), HIDDEN, row(*[1] * 16), whole(-1)),
    "a draft in a far slot": call("verify_slots", SAMPLERS, STATES, LATEST, whole(3), HIDDEN, row(*[1] * 16), whole(1)),
    "a draft of other tokens": call("verify_slots", SAMPLERS, STATES, LATEST, whole(0), HIDDEN, row(1, 2), whole(1)),
    "samplers of 0 slots": call("new_samplers", CHAIN, 0),
    "samplers of -1 slots": call("new_samplers", CHAIN, -1),
    "samplers of too many slots": call("new_samplers", CHAIN, FAR),
    "a copy of too many positions": call("copy_slot", HELD, whole(0), whole(0), whole(CAPACITY + 1)),
    "a copy to a far slot": call("copy_slot", HELD, whole(0), whole(2), whole(1)),
    "a copy of a negative slot": call("copy_slot", HELD, whole(-1), whole(0), whole(1)),
    "a saved far slot": call("save_slot", HELD, whole(2), 64),
    "a saved slot for a far one": call("load_slot", HELD, HELD, whole(2)),
    "a window after the slot": call("slide_slot", HELD, whole(0), whole(CAPACITY + 1)),
    "a window before the slot": call("slide_slot", HELD, whole(0), whole(-1)),
    "a saved slot of no positions": call("save_slot", HELD, whole(0), 0),
    "a saved slot of too many": call("save_slot", HELD, whole(0), CAPACITY + 1),
    "a chain as a saved slot": call("load_slot", HELD, CHAIN, whole(0)),
    "a larger saved slot": call("load_slot", FULL, HELD, whole(0)),
    "a window of a far slot": call("slide_slot", HELD, whole(2), whole(0)),
    "a negative number of the result": call("truncate", HELD, whole(1), number=-1),
    "a huge number of the result": call("truncate", HELD, whole(1), number=10**30),
    "a negative handle": call("truncate", -HELD, whole(1)),
    "a huge handle": call("truncate", 10**30, whole(1)),
    "a cache to fetch": call("fetch", value=HELD),
    "a chain to fetch": call("fetch", value=CHAIN),
    "nothing to wait for": call("ready", value=99),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_one_line_and_nothing_computed(worker: RemoteWorker, name: str) -> None:
    before = dict(worker._values)
    with pytest.raises(FormatError) as caught:
        worker.obey(HOSTILE[name])
    line = str(caught.value)
    assert line.startswith(f"the leader's {HOSTILE[name].op} cannot be understood: ") and "\n" not in line
    assert len(line) < 200
    assert worker._values == before


def test_the_worker_goes_on_afterwards(worker: RemoteWorker) -> None:
    """The values of the fixture are usable: the refusals above have the reason that they name."""
    numbers = dict(worker._values)
    worker.obey(Message("resize", {"number": 30, "args": [HELD, 2 * CAPACITY]}))
    worker.obey(Message("gather_rows", {"number": 31, "args": [30, "array"]}, (whole(0, 0),)))
    assert worker._values[31].batch == 2 and worker._values[31].capacity == 2 * CAPACITY
    np.testing.assert_array_equal(worker._values[31].lengths, [13, 13])
    np.testing.assert_array_equal(np.asarray(worker._values[31].cache.length), [13, 13])
    worker._values = numbers


def test_a_cache_that_memory_has_no_room_for(llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_checks, "available_bytes", lambda device: 1000)
    with pytest.raises(ResourceError, match=r"a cache of .* GiB does not fit in the 0\.00 GiB that are free here"):
        check_new_cache(llm.config, 64, TYPES, 1)


@pytest.mark.parametrize(
    "values",
    [
        {"ctx_size": 0, "shares": []},
        {"ctx_size": -5, "shares": []},
        {"ctx_size": 2**40, "shares": []},
        {"ctx_size": True, "shares": []},
        {"ctx_size": 512, "shares": [float("nan")]},
        {"ctx_size": 512, "shares": [float("inf")]},
        {"ctx_size": 512, "shares": [-1]},
        {"ctx_size": 512, "shares": [True]},
        {"ctx_size": 512, "shares": [1] * 5000},
        {"ctx_size": 512},
        {},
    ],
)
def test_impossible_numbers_of_an_open(llm: ml.LLM, values: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="the leader's open cannot be understood"):
        _open(llm.path, values)


def test_numbers_and_shares() -> None:
    assert in_range(3, "n", 0, 3) == 3 and check_shares([3, 1.5]) == [3.0, 1.5]
    for wrong in (4, -1, 3.0, True, "3", None):
        with pytest.raises(ValueError, match=r"^n is .*, not 0 to 3"):
            in_range(wrong, "n", 0, 3)


def test_a_chain_of_endless_stages_is_refused(llm: ml.LLM) -> None:
    for samplers in ("k" * (MOST_STAGES + 1), "top_k;" * (MOST_STAGES + 1)):
        message = Message("chain", {"number": 9, "sampling": {"logit_bias": [], "samplers": samplers}})
        with pytest.raises(OptionError, match=f"samplers names more than {MOST_STAGES} stages"):
            RemoteWorker(llm.backend, None).obey(message)


def test_every_program_is_checked() -> None:
    assert {**CHECKS, **SLOT_CHECKS}.keys() == ALL_PROGRAMS.keys()


class TestWithoutTheChecks:
    """The programs themselves, as a caller in this process may run them: nothing outside of a buffer is touched."""

    @pytest.mark.parametrize("length", [FAR, -FAR, 512, -1])
    def test_a_length_outside_of_the_cache(self, llm: ml.LLM, length: int) -> None:
        cache = llm.backend.new_cache(512, llm.cache_types)
        _, cache = llm.backend.call(text_programs.prefill, cache, np.ones((1, 32), np.int32), whole(32))
        cache = llm.backend.truncate(cache, whole(length))
        logits, cache = llm.backend.call(text_programs.prefill, cache, row(1), whole(1))
        assert np.isfinite(np.asarray(logits)).all()
        logits, _ = llm.backend.call(text_programs.prefill, cache, np.ones((1, 32), np.int32), whole(32))
        assert np.isfinite(np.asarray(logits)).all()

    @pytest.mark.parametrize("valid", [-100_000, -FAR, -1, 33, FAR])
    def test_a_number_of_valid_tokens_outside_of_the_ids(self, llm: ml.LLM, valid: int) -> None:
        cache = llm.backend.new_cache(512, llm.cache_types)
        logits, _ = llm.backend.call(text_programs.prefill, cache, np.ones((1, 32), np.int32), whole(valid))
        assert np.asarray(logits).shape == (1, VOCAB)

    @pytest.mark.slow
    def test_a_draft_longer_than_its_ids_ends(self, llm: ml.LLM) -> None:
        """Token 0 is the only one that may follow, and pads the ids: no sample differs from the draft."""
        chain = llm.backend.chain(llm.sampling(temp=0.0, logit_bias=((0, 1e30),)))
        cache = llm.backend.new_cache(512, llm.cache_types)
        _, cache = llm.backend.call(text_programs.prefill, cache, np.ones((1, 32), np.int32), whole(32))
        state = llm.backend.call(text_programs.start, chain, SEEDS, WINDOW, whole(0))
        draft, _, _ = llm.backend.call(
            text_programs.generate, cache, chain, state, np.zeros((1, 4), np.int32), whole(FAR), None
        )
        assert np.asarray(draft.count).tolist() == [4]


def test_kinds_of_arrays_have_a_check() -> None:
    """Every program that takes numbers of the leader is in the table above, with some that are wrong."""
    numbers = {Kind.IDS, Kind.COUNTS, Kind.WINDOW, Kind.SEEDS, Kind.STATIC}
    for name, program in ALL_PROGRAMS.items():
        if numbers & set(program.takes):
            assert sum(message.op == name for message in HOSTILE.values()) >= 3, name
