"""The scheduler on a device without a model and a virtual clock: whatever comes, every token reaches its owner."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import pytest
from fake_executor import END, Compilation, DeviceError, FakeClock, FakeExecutor, lone_text, next_token
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import write_tiny

from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.batching.batch_task import BatchTask, SubmitOptions
from minillama.engine.batching.policy.chunk_rule import ChunkRule
from minillama.engine.batching.policy.slot_drafter import SlotDrafter
from minillama.engine.batching.scheduler import Rules, Scheduler
from minillama.engine.batching.slots import UNREAD
from minillama.engine.drafting.guesser import DraftText
from minillama.engine.generate_options import Request
from minillama.engine.generation.text_request import TextRequest
from minillama.engine.result import Reason, State
from minillama.errors import ResourceError
from minillama.gguf import open_gguf
from minillama.sampling import Sampling
from minillama.tokenizer import Tokenizer, load_tokenizer

CAPACITY = 24
MOST_TURNS = 3000


@dataclass(frozen=True)
class Arrival:
    """A request of a test: when it comes, what it is, and when it is cancelled."""

    turn: int
    ids: tuple[int, ...]
    n: int
    seed: int
    shifts: bool = False
    keep: int = 0
    slot: int | None = None
    cache_prompt: bool = True
    cancelled: int | None = None
    sampler: str | None = None  # of a rare structure

    def expected(self) -> tuple[list[int], Reason]:
        options = {"n": self.n, "seed": self.seed, "shifts": self.shifts, "keep": self.keep}
        return lone_text(self.ids, capacity=CAPACITY, **options)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama")
    found = load_tokenizer(open_gguf(path).metadata)
    assert found.eog == {END} and found.add_bos
    return found


class Played:
    """A scheduler that is played arrival by arrival."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        slots: int,
        *,
        rewinds: bool,
        cached: int,
        fails: set[int],
        luck: Random | None = None,
        seconds: float = 1.0,
    ) -> None:
        """seconds: what the device takes for a token of a prompt; for a step ten times that."""
        self.clock, self.tokenizer, self.fails, self.rewinds = FakeClock(), tokenizer, fails, rewinds
        self.device: FakeExecutor
        self.compilations: list[Compilation] = []

        def make_executor() -> FakeExecutor:
            device = FakeExecutor(slots, CAPACITY, self.clock, rewinds, self.fails, seconds, self.compilations)
            self.device = device
            self.fails = set()
            return self.device

        drafter = None if luck is None else SlotDrafter(FakeGuesser(self, luck), 5, slots, CAPACITY)
        rules = Rules(slots, 8, cache_bytes=8 * cached)
        self.scheduler = Scheduler(make_executor, rules, self.clock, drafter, self.wake)
        self.began: list[int] = []  # numbers of requests, in the order of their slots
        self.streams: dict[int, tuple[Arrival, BatchStream]] = {}

    def add(self, arrival: Arrival) -> None:
        number = len(self.streams)
        stream = BatchStream(number, len(arrival.ids), arrival.seed, lambda stream: None)
        request = Request(n=arrival.n, context_shift=arrival.shifts, keep=arrival.keep)
        text = TextRequest(arrival.ids, request, Sampling())
        options = SubmitOptions(cache_prompt=arrival.cache_prompt, slot=arrival.slot)
        self.streams[number] = arrival, stream
        self.scheduler.add(BatchTask(stream, text, options, arrival.sampler, self.tokenizer, self.clock()))

    def wake(self) -> None:
        self.scheduler.admission.sampler_compiled()

    def turn(self, turn: int) -> None:
        for compilation in list(self.compilations):
            compilation.turn()
            if compilation.turns == 0:
                self.compilations.remove(compilation)
        for arrival, stream in self.streams.values():
            if arrival.cancelled is not None and arrival.turn + arrival.cancelled <= turn:
                stream.cancel()
        self.scheduler.turn()
        self.scheduler.settle()
        for number, (_, stream) in self.streams.items():
            if stream.slot is not None and number not in self.began:
                self.began.append(number)
        self.check()

    def check(self) -> None:
        """What holds after every turn."""
        scheduler = self.scheduler
        owners = [slot.task.number for slot in scheduler.slots if slot.task is not None]
        waiting = [task.number for task in scheduler.waiting]
        open_ones = [number for number, (_, stream) in self.streams.items() if stream.state is not State.DONE]
        assert sorted([*owners, *waiting]) == open_ones, "no request is lost, none is there twice"
        for slot, cells in zip(scheduler.slots, self.device.cells, strict=True):
            known = slot.text[:-1] if slot.text and slot.text[-1] == UNREAD else slot.text
            assert UNREAD not in known and len(slot.text) <= CAPACITY
            assert known == cells[: len(known)], "a slot holds what the scheduler believes"
        assert scheduler.prefix_cache.nbytes <= scheduler.prefix_cache.limit

    def play(self, arrivals: list[Arrival]) -> None:
        left = sorted(arrivals, key=lambda arrival: arrival.turn)
        for turn in range(MOST_TURNS):
            while left and left[0].turn <= turn:
                self.add(left.pop(0))
            if not left and not self.scheduler.has_work and not self.compilations:
                assert not self.scheduler.waiting
                return
            self.turn(turn)
        raise AssertionError("starved")


def arrivals() -> st.SearchStrategy[list[Arrival]]:
    beginnings = st.sampled_from([(1, 5, 6, 7, 8, 9), (1, 5, 6, 7), (1, 9), (1,)])
    ids = st.builds(lambda a, b: (*a, *b), beginnings, st.lists(st.integers(3, 8), max_size=15).map(tuple))
    one = st.builds(
        Arrival,
        turn=st.integers(0, 40),
        ids=ids,
        n=st.one_of(st.integers(0, 30), st.just(-1)),
        seed=st.integers(0, 50),
        keep=st.integers(-1, 6),
        slot=st.one_of(st.none(), st.none(), st.integers(0, 1)),
        cache_prompt=st.booleans(),
        cancelled=st.one_of(st.none(), st.none(), st.integers(0, 12)),
        sampler=st.sampled_from([None, None, None, "top-k off", "mirostat"]),
    )
    shifting = st.builds(lambda one: Arrival(**{**vars(one), "n": abs(one.n), "shifts": True}), one)
    return st.lists(st.one_of(one, shifting), max_size=14)


@given(arrivals(), st.integers(2, 4), st.booleans(), st.sampled_from([0, 40, 1000]), st.sampled_from([1.0, 0.05]))
@settings(max_examples=30)
def test_every_token_reaches_its_owner(
    tokenizer: Tokenizer, arrivals: list[Arrival], slots: int, rewinds: bool, cached: int, seconds: float
) -> None:
    """The text of each request is that of the request alone, or its beginning where it was cancelled."""
    played = Played(tokenizer, slots, rewinds=rewinds, cached=cached, fails=set(), seconds=seconds)
    played.play(arrivals)
    for arrival, stream in played.streams.values():
        tokens, reason = arrival.expected()
        done = stream.finish()
        if arrival.cancelled is not None and done.reason is Reason.INTERRUPTED:
            assert list(done.tokens) == tokens[: len(done.tokens)]
        else:
            assert (list(done.tokens), done.reason) == (tokens, reason)
            assert stream.read_tokens == stream.prompt_tokens
    counters = played.scheduler.counters
    assert counters.completed + counters.cancelled == counters.submitted == len(arrivals)
    assert counters.failed == 0


@dataclass
class FakeGuesser:
    """Guesses of a device's next tokens, some of them wrong; it needs a chunk now and then."""

    played: Played
    luck: Random

    def lacks(self, text: DraftText) -> int:
        return self.luck.randrange(2)

    def read(self, text: DraftText) -> None:
        assert UNREAD not in text.tokens

    def guess(self, texts: Sequence[DraftText]) -> list[list[int]]:
        found = []
        for text in texts:
            assert text.most > 0 and UNREAD not in text.tokens
            tokens, seed = list(text.tokens), self.played.device.seeds[text.slot]
            for _ in range(self.luck.randint(0, text.most)):
                tokens.append(next_token(seed, tokens) if self.luck.random() < 0.8 else 5)
            found.append(tokens[len(text.tokens) :])
        return found

    def warm_ups(self) -> Iterator[str]:
        yield from ()


@given(arrivals(), st.integers(2, 4), st.integers(0, 1000), st.sets(st.integers(1, 120), max_size=1))
@settings(max_examples=30)
def test_drafts_change_no_text(
    tokenizer: Tokenizer, arrivals: list[Arrival], slots: int, seed: int, fails: set[int]
) -> None:
    """Whatever is guessed: every text is that of the request alone, or its beginning where it was cut."""
    played = Played(tokenizer, slots, rewinds=True, cached=40, fails=fails, luck=Random(seed))
    played.play(arrivals)
    for arrival, stream in played.streams.values():
        if stream.error is None:
            tokens, reason = arrival.expected()
            done = stream.completion
            assert list(done.tokens) == tokens[: len(done.tokens)]
            assert done.reason is reason or arrival.cancelled is not None
            assert stream.accepted_tokens <= min(stream.drafted_tokens, len(done.tokens))
    counters = played.scheduler.counters
    streams = [stream for _, stream in played.streams.values()]
    assert counters.draft_tokens == sum(stream.drafted_tokens for stream in streams)
    assert counters.accepted_drafts == sum(stream.accepted_tokens for stream in streams)


@given(arrivals(), st.integers(2, 3))
@settings(max_examples=15)
def test_first_come_first_served(tokenizer: Tokenizer, arrivals: list[Arrival], slots: int) -> None:
    """Requests for any slot get one in the order of their arrival.

    They pass those for a certain slot, and those whose sampler is being compiled.
    """
    played = Played(tokenizer, slots, rewinds=True, cached=0, fails=set())
    played.play(arrivals)
    begun = [(number, played.streams[number][0]) for number in played.began]
    free = [number for number, arrival in begun if arrival.slot is None and arrival.sampler is None]
    assert free == sorted(free)


@given(arrivals(), st.sets(st.integers(1, 120), max_size=3), st.booleans())
@settings(max_examples=20)
def test_a_failed_call_fails_the_requests_in_slots(
    tokenizer: Tokenizer, arrivals: list[Arrival], fails: set[int], rewinds: bool
) -> None:
    """They get a clear error; those that wait are served from a fresh cache."""
    played = Played(tokenizer, 2, rewinds=rewinds, cached=40, fails=fails)
    played.play(arrivals)
    failed = 0
    for arrival, stream in played.streams.values():
        if stream.error is not None:
            failed += 1
            assert isinstance(stream.error, ResourceError) and isinstance(stream.error.__cause__, DeviceError)
            assert "the step failed (DeviceError: out of order); send the request again" in str(stream.error)
        elif stream.completion.reason is not Reason.INTERRUPTED:
            assert (list(stream.completion.tokens), stream.completion.reason) == arrival.expected()
    assert failed == played.scheduler.counters.failed <= 2 * len(fails)


def test_a_sampler_waits_until_others_are_not_used(tokenizer: Tokenizer) -> None:
    """As many rare samplers as are kept are in use, and one more is wanted: it is compiled when a text has ended."""
    played = Played(tokenizer, 3, rewinds=True, cached=0, fails=set())
    samplers = ("top-k off", "mirostat")
    played.play([Arrival(turn, (1, 5, 6), n=2, seed=4, sampler=name) for turn, name in enumerate(samplers)])
    assert all(list(stream.finish().tokens) == arrival.expected()[0] for arrival, stream in played.streams.values())


def test_a_step_for_all_and_one_chunk(tokenizer: Tokenizer) -> None:
    """While a long prompt is read, the text that is generated moves in every turn."""
    seed = next(
        seed for seed in range(99) if END not in lone_text([1, 5], n=15, seed=seed, capacity=24, shifts=False)[0]
    )
    played = Played(tokenizer, 2, rewinds=True, cached=0, fails=set())
    played.play([Arrival(0, (1, 5), 15, seed), Arrival(3, (1, *range(10, 30)), 1, 0)])
    chunks = [turn for turn in played.scheduler.log if turn.chunk is not None and turn.chunk.request == 1]
    assert [turn.chunk.start for turn in chunks if turn.chunk] == [1, 9, 17]  # the first token was copied
    assert all(turn.rows == ((0, 0),) for turn in chunks)
    assert played.scheduler.counters.copied_tokens == 1


def test_the_longest_prefix_then_the_least_recently_used(tokenizer: Tokenizer) -> None:
    played = Played(tokenizer, 3, rewinds=True, cached=0, fails=set())
    texts = [(1, *range(start, start + 11)) for start in (10, 30, 50)]
    for ids in texts:
        played.play([Arrival(0, ids, 1, 0)])
    played.play([Arrival(0, (*texts[1], 25), 1, 0)])
    played.play([Arrival(0, (1, *range(70, 90)), 1, 0)])
    streams = [stream for _, stream in played.streams.values()]
    assert [stream.slot for stream in streams] == [0, 1, 2, 1, 0]
    assert [stream.cached_tokens for stream in streams] == [0, 1, 1, 11, 1], "without a last token, which a step ran"


@pytest.mark.parametrize("rewinds", [True, False])
def test_an_evicted_text_comes_back_from_memory(tokenizer: Tokenizer, rewinds: bool) -> None:
    played = Played(tokenizer, 1, rewinds=rewinds, cached=100, fails=set())
    first, other = (1, *range(10, 20)), (1, *range(50, 60))
    for ids in (first, other, first):
        played.play([Arrival(0, ids, 1, 0)])
    assert [stream.cached_tokens for _, stream in played.streams.values()] == [0, int(rewinds), len(first) - 1]
    assert played.scheduler.counters.ram_hits == 1


def test_chunks_cost_about_two_steps() -> None:
    rule = ChunkRule(512)
    assert rule.size(generating=False) == 512 and rule.size(generating=True) == 64
    for _ in range(30):
        rule.measured(0.050, rows=4, tokens=0)
        rule.measured(0.050 + 64 * 0.001, rows=4, tokens=64)
    assert rule.size(generating=True) == 64  # 100 ms are two steps
    assert rule.size(generating=False) == 512
    for _ in range(50):
        rule.measured(512 * 0.010, rows=0, tokens=512)  # a slower machine
    assert rule.size(generating=False) == 64 and rule.size(generating=True) == 16


def test_short_prompts_are_read_whole_without_steps_between_them(tokenizer: Tokenizer) -> None:
    """A text that runs waits for some of them, and all of them begin in one step."""
    seed = next(
        seed for seed in range(99) if END not in lone_text([1, 5], n=9, seed=seed, capacity=24, shifts=False)[0]
    )
    played = Played(tokenizer, 4, rewinds=True, cached=0, fails=set(), seconds=1 / 32)
    short = [Arrival(3, (1, 20 + number, 30, 31, 32), 1, 0) for number in range(3)]
    played.play([Arrival(0, (1, 5, 6), 9, seed), *short])
    log = list(played.scheduler.log)
    first = next(place for place, turn in enumerate(log) if turn.chunk is not None and turn.chunk.request == 1)
    turns = [(len(turn.rows), turn.chunk.tokens if turn.chunk else 0) for turn in log[first : first + 4]]
    assert turns == [(1, 3), (0, 3), (0, 3), (4, 0)], "the first two tokens of each were copied"


@pytest.mark.parametrize(("seconds", "waits"), [(1.0, 6), (0.001, 0)])
def test_the_next_turn_waits_where_turns_are_long(tokenizer: Tokenizer, seconds: float, waits: int) -> None:
    """A turn that follows a long one begins after the device's work; short ones run ahead."""
    seed = next(seed for seed in range(99) if END not in lone_text([5], n=6, seed=seed, capacity=24, shifts=False)[0])
    played = Played(tokenizer, 2, rewinds=True, cached=0, fails=set(), seconds=seconds)
    played.play([Arrival(0, (5,), 6, seed)])
    assert len(played.scheduler.log) == 7 and played.device.waits == waits


def test_a_burst_of_short_prompts_ends() -> None:
    rule = ChunkRule(512)
    assert not rule.is_burst(0, 10, generating=False), "nothing is measured yet"
    rule.measured(100 * 0.010, rows=0, tokens=100)
    assert rule.is_burst(0, 150, generating=True) and rule.is_burst(50, 100, generating=True)
    assert not rule.is_burst(0, 151, generating=True), "more than 1.5 seconds"
    assert not rule.is_burst(51, 100, generating=True)
    assert rule.is_burst(700, 100, generating=False), "no text waits"
    assert not rule.is_burst(701, 100, generating=False), "more than 8 seconds"
    assert rule.burst_size() == 150, "a request can be cancelled after 1.5 seconds"
    rule.measured(0.0, rows=0, tokens=100)
    assert not rule.is_burst(0, 513, generating=False), "a long prompt is cut on the fastest machine, too"


def test_prompts_that_come_together_begin_together(tokenizer: Tokenizer) -> None:
    """While no text has a token, prompts are read for longer than 1.5 seconds."""
    played = Played(tokenizer, 4, rewinds=True, cached=0, fails=set(), seconds=1 / 16)
    played.play([Arrival(0, (9, 8, 7), 1, 0)])  # the cost of a token is measured
    before = len(played.scheduler.log)
    played.play([Arrival(0, (1, 20 + number, 30, 31, 32), 2, 0) for number in range(4)])
    log = list(played.scheduler.log)[before:]
    first = next(place for place, turn in enumerate(log) if turn.rows)
    assert len(log[first].rows) == 4, "no step before all prompts are read"
    assert sum(turn.chunk is not None for turn in log[:first]) >= 4


def test_texts_of_the_fake_device_differ() -> None:
    assert len({next_token(seed, [1, 2]) for seed in range(50)}) > 30
