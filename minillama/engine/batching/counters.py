"""Counters of a batch engine, and the log of its last turns."""

from dataclasses import dataclass, field, fields


@dataclass
class Counters:
    """Sums since the engine was opened, of requests, tokens and seconds."""

    submitted: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    prompt_tokens: int = 0  # evaluated, without cached ones
    prompt_seconds: float = 0.0  # from a slot to the first token, summed over requests
    cached_tokens: int = 0  # of prompts, that slots held
    copied_tokens: int = 0  # of these, copied from another slot
    ram_tokens: int = 0  # of these, from the prefix cache
    ram_hits: int = 0  # prompts that began with a copy of the prefix cache
    generated_tokens: int = 0
    generated_seconds: float = 0.0  # after the first token, summed over requests
    steps: int = 0
    step_rows: int = 0  # texts in all steps
    chunks: int = 0
    longest_text: int = 0  # tokens
    drafts: int = 0  # guesses of the draft model that were verified
    draft_tokens: int = 0  # tokens of these
    accepted_drafts: int = 0  # of these, what the model chose too

    def count_end(self, prompt_seconds: float, generated_seconds: float, *, is_cancelled: bool) -> None:
        """Count a request that has ended without an error."""
        if is_cancelled:
            self.cancelled += 1
        else:
            self.completed += 1
        self.prompt_seconds += prompt_seconds
        self.generated_seconds += generated_seconds


def sum_counters(first: Counters, second: Counters) -> Counters:
    """The counters of two engines together."""
    sums = {field.name: getattr(first, field.name) + getattr(second, field.name) for field in fields(Counters)}
    return Counters(**{**sums, "longest_text": max(first.longest_text, second.longest_text)})


@dataclass(frozen=True)
class Metrics:
    """Counters of an engine, and its state now."""

    counters: Counters
    slots: int
    processing: int  # requests in slots
    waiting: int  # requests in the queue
    ram_entries: int  # copies in the prefix cache
    ram_bytes: int

    @property
    def rows_per_step(self) -> float:
        """Mean number of texts in a step."""
        return self.counters.step_rows / self.counters.steps if self.counters.steps else 0.0


@dataclass(frozen=True)
class SlotInfo:
    """A slot as it is now."""

    number: int
    capacity: int  # tokens
    tokens: int  # in the cache
    request: int | None  # number of the request that it has
    prompt_left: int  # tokens of the prompt that are not read yet
    generated: int
    is_drafted: bool = False  # whether a draft model guesses for it


@dataclass(frozen=True)
class ChunkRecord:
    """A part of a prompt that a turn ran."""

    slot: int
    request: int
    start: int  # position of its first token
    tokens: int


@dataclass(frozen=True)
class TurnRecord:
    """One turn of the scheduler.

    rows: (slot, request) of each text in its step. seconds: of the whole turn, with the wait for the last one's tokens.
    """

    number: int
    began: float  # seconds since the engine was opened, on its clock
    seconds: float = 0.0
    rows: tuple[tuple[int, int], ...] = ()
    chunk: ChunkRecord | None = None
    waiting: int = 0  # requests in the queue
    notes: tuple[str, ...] = field(default=())  # what else happened, such as a context shift
