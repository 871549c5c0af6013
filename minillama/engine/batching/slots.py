"""The host's state of a slot: the text in its cache, and its request."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.counters import SlotInfo
from minillama.engine.batching.executor import Chunk, Draw, Masks

UNREAD = -1  # a token that the device has sampled and run, and the host has not read yet


@dataclass(eq=False)
class Slot:
    """One slot.

    text: the tokens in its cache; at most the last one is UNREAD. prompt: tokens to run in chunks before the next step.
    read: number of the first tokens that chunks run; steps run those after them.
    """

    number: int
    text: list[int] = field(default_factory=list)
    task: BatchTask | None = None
    prompt: list[int] = field(default_factory=list)
    read: int = 0
    drawn: int = 0  # tokens that the device was told to draw for the task
    is_rare: bool = False  # its sampler draws alone
    latest: int = UNREAD  # the token of the next step: the last one of the prompt, then the last drawn one
    last_used: float = 0.0

    @property
    def is_generating(self) -> bool:
        """Whether steps run it: chunks have run all of its prompt but the last token."""
        return self.task is not None and not self.prompt

    def begin(self, task: BatchTask, cached: int, *, is_rare: bool) -> None:
        """Take a task, with the first `cached` tokens of its prompt in the cache."""
        self.task, self.drawn, self.latest, self.is_rare = task, 0, task.ids[-1], is_rare
        self.go_on_with(task.ids[:-1], cached)

    def go_on_with(self, tokens: Sequence[int], cached: int) -> None:
        """Hold the first `cached` tokens, and run the others next."""
        self.text, self.prompt, self.read = list(tokens[:cached]), list(tokens[cached:]), len(tokens)

    def next_chunk(self, size: int) -> list[int]:
        """At most `size` tokens of the prompt, from now on in the cache."""
        chunk, self.prompt = self.prompt[:size], self.prompt[size:]
        self.text += chunk
        return chunk

    def run_latest(self) -> None:
        """The latest token is in the cache from now on, and one more is drawn."""
        self.text.append(self.latest)
        self.latest = UNREAD
        self.drawn += 1

    def learn(self, token: int) -> None:
        """The token of the last draw that had not been read."""
        if self.text and self.text[-1] == UNREAD:
            self.text[-1] = token
        else:
            self.latest = token

    def release(self, now: float, *, rewinds: bool) -> None:
        """Be idle, and keep the text for requests that begin like it.

        rewinds: whether the cache can go back a token, where the last one is not known.
        """
        if self.text and self.text[-1] == UNREAD:
            self.text = self.text[:-1] if rewinds else []
        self.task, self.prompt, self.drawn, self.last_used = None, [], 0, now

    def info(self, capacity: int, *, is_drafted: bool) -> SlotInfo:
        """Its state now."""
        task = None if self.task is None else self.task.number
        return SlotInfo(self.number, capacity, len(self.text), task, len(self.prompt), self.drawn, is_drafted)

    def clear(self) -> None:
        """Hold nothing."""
        self.text, self.task, self.prompt, self.read, self.drawn = [], None, [], 0, 0


@dataclass(frozen=True)
class ChunkUnderWay:
    """A chunk that the device is computing."""

    task: BatchTask
    handle: Chunk
    tokens: int  # of the prompt


@dataclass(frozen=True)
class DrawUnderWay:
    """Tokens that the device is sampling.

    rows: slot, task, and whether the text then fills the slot.
    """

    handle: Draw
    rows: tuple[tuple[Slot, BatchTask, bool], ...]


def grammar_masks(slots: Sequence[Slot]) -> dict[str, Masks]:
    """`allowed` of a draw: the masks of grammars; empty without one."""
    masks = [None if slot.task is None else slot.task.allowed for slot in slots]
    return {"allowed": masks} if any(mask is not None for mask in masks) else {}
