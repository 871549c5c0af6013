"""Open a batch engine: check the options, refuse what does not fit in memory."""

from collections.abc import Callable
from dataclasses import dataclass

from minillama.engine.backends.base import Backend
from minillama.engine.batches import Batches
from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.executor import Executor
from minillama.engine.batching.policy.slot_drafter import SlotDrafter
from minillama.engine.batching.scheduler import Rules
from minillama.engine.batching.slot_executor import SlotExecutor
from minillama.engine.drafting.draft_model import DEFAULT_GUESS, DraftModel
from minillama.engine.generate_options import LARGEST_DRAFT
from minillama.engine.generation.text_request import RequestReader
from minillama.engine.loading.memory_budget import available_bytes, round_up, shown_bytes
from minillama.errors import OptionError, ResourceError, UnsupportedError, quoted
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import cache_bytes
from minillama.option_values import as_int

MOST_SLOTS = 256


@dataclass(frozen=True)
class SlotOptions:
    """The options of `LLM.batch_engine`. Raises OptionError for impossible values."""

    slots: int
    ctx_size: int  # tokens of each slot
    max_waiting: int
    slot_prompt_similarity: float
    cache_ram: int  # MiB of the prefix cache
    draft_max: int | None = None  # most tokens of a guess of the draft model

    def __post_init__(self) -> None:
        bounds = {
            "slots": (1, MOST_SLOTS),
            "ctx_size": (1, 1 << 31),
            "max_waiting": (1, 1 << 31),
            "cache_ram": (0, 1 << 31),
        }
        if self.draft_max is not None:
            bounds["draft_max"] = 0, LARGEST_DRAFT
        for name, (low, high) in bounds.items():
            value = as_int(getattr(self, name))
            if value is None or not low <= value <= high:
                raise OptionError(f"{name} is {quoted(getattr(self, name))}; expected {low} to {high}")
        if not 0 <= self.slot_prompt_similarity <= 1:
            raise OptionError(f"slot_prompt_similarity is {quoted(self.slot_prompt_similarity)}; expected 0 to 1")


def open_batch_engine(
    backend: Backend,
    requests: RequestReader,
    batches: Batches,
    types: CacheTypes,
    options: SlotOptions,
    check_file: Callable[[], None],
    draft: DraftModel | None = None,
) -> BatchEngine:
    """Open a batch engine on a model.

    Raises ResourceError where the slots do not fit in memory, or the model's file has changed.
    """
    check_file()
    capacity = round_up(options.ctx_size)
    draft_max = DEFAULT_GUESS if options.draft_max is None else options.draft_max
    draft = draft if draft_max > 0 else None
    check_slots_fit(backend, capacity, types, options.slots, draft)
    batches = batches.within(capacity)

    def make_executor() -> Executor:
        return SlotExecutor(backend, options.slots, capacity, batches.ubatch_size, types)

    rules = Rules(options.slots, batches.ubatch_size, options.slot_prompt_similarity, options.cache_ram << 20)
    drafter = None
    if draft is not None:
        if backend.config.is_recurrent:
            raise UnsupportedError(
                "a draft model and slots: the model's recurrent layers cannot go back there after a wrong guess; open "
                "the engine with draft_max=0, or the model without a draft model"
            )
        drafter = SlotDrafter(draft.for_slots(options.slots, capacity), draft_max, options.slots, capacity)
    return BatchEngine(backend, requests, make_executor, rules, options.max_waiting, check_file, drafter)


def check_slots_fit(
    backend: Backend, capacity: int, types: CacheTypes, slots: int, draft: DraftModel | None = None
) -> None:
    """Raise ResourceError where slots of that many tokens do not fit in memory.

    A draft model has as many.
    """
    if not backend.devices:  # workers, whose memory is unknown
        return
    free = min(map(available_bytes, backend.devices))
    needed = cache_bytes(backend.config, capacity, types, batch=slots) // len(backend.devices)
    if draft is not None:
        needed += draft.cache_bytes(slots, capacity)
    if needed > free:
        raise ResourceError(
            f"{slots} slots of {capacity} tokens need {shown_bytes(needed)} of cache, but {shown_bytes(free)} are "
            "free; choose fewer slots or a smaller ctx_size"
        )


def fitting_slots(slots: int, texts: int) -> int:
    """Slots for a number of texts: a power of two, at most `slots`.

    Each number of slots is a compilation.
    """
    return min(slots, 1 << max(texts - 1, 0).bit_length())
