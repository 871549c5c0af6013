"""Open a batch engine: check the options, refuse what does not fit in memory."""

from collections.abc import Callable
from dataclasses import dataclass

from minillama.engine.backends.base import Backend
from minillama.engine.batches import Batches
from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.executor import Executor
from minillama.engine.batching.scheduler import Rules
from minillama.engine.batching.session_executor import SessionExecutor
from minillama.engine.generation.text_request import RequestReader
from minillama.engine.loading.memory_budget import CONTEXT_STEP, available_bytes, logger, round_up, shown_bytes
from minillama.engine.session import Session
from minillama.errors import OptionError, ResourceError, quoted
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import cache_bytes
from minillama.option_values import as_int

MOST_SLOTS = 256


@dataclass(frozen=True)
class SlotOptions:
    """The options of `LLM.batch_engine`. Raises OptionError for impossible values."""

    slots: int = 8
    ctx_size: int | None = None
    max_waiting: int = 1024
    slot_prompt_similarity: float = 0.1

    def __post_init__(self) -> None:
        most = 1 << 31
        bounds = {"slots": (1, MOST_SLOTS), "max_waiting": (1, most)} | (
            {} if self.ctx_size is None else {"ctx_size": (1, most)}
        )
        for name, (low, high) in bounds.items():
            value = as_int(getattr(self, name))
            if value is None or not low <= value <= high:
                raise OptionError(f"{name} is {quoted(getattr(self, name))}; expected {low} to {high}")
        if not 0 <= self.slot_prompt_similarity <= 1:
            raise OptionError(f"slot_prompt_similarity is {quoted(self.slot_prompt_similarity)}; expected 0 to 1")


def open_batch_engine(
    backend: Backend,
    requests: RequestReader,
    ctx_size: int,
    batches: Batches,
    types: CacheTypes,
    options: SlotOptions,
    check_file: Callable[[], None],
) -> BatchEngine:
    """Open a batch engine on a model whose texts have `ctx_size` tokens.

    Raises ResourceError where the slots do not fit in memory.
    """
    capacity = slot_capacity(backend, ctx_size, types, options)
    batches = batches.within(capacity)

    def make_executor() -> Executor:
        return SessionExecutor([Session(backend, capacity, batches, types) for _ in range(options.slots)])

    rules = Rules(options.slots, batches.ubatch_size, options.slot_prompt_similarity)
    return BatchEngine(backend, requests, make_executor, rules, options.max_waiting, check_file)


def slot_capacity(backend: Backend, ctx_size: int, types: CacheTypes, options: SlotOptions) -> int:
    """Tokens of each slot: those wanted, else the model's, halved while memory is short.

    Raises ResourceError where the slots do not fit in memory.
    """
    devices, slots = backend.devices, options.slots
    free = min(map(available_bytes, devices)) if devices else 1 << 62  # nothing is known of workers' memory
    capacity = ctx_size if options.ctx_size is None else round_up(options.ctx_size)

    def needed() -> int:
        return cache_bytes(backend.config, capacity, types, batch=slots) // max(1, len(devices))

    if options.ctx_size is None:
        while needed() > 0.8 * free and capacity > CONTEXT_STEP:
            capacity = round_up(capacity // 2)
        if capacity < ctx_size:
            logger.warning("slots of %d tokens in place of %d, to fit %s", capacity, ctx_size, shown_bytes(free))
    if needed() > free:
        raise ResourceError(
            f"{slots} slots of {capacity} tokens need {shown_bytes(needed())} of cache, but {shown_bytes(free)} are "
            "free; choose fewer slots or a smaller ctx_size"
        )
    return capacity
