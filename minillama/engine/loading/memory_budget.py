"""Predict the memory of a model and its context, and refuse what cannot fit."""

import ctypes
import logging
import sys
from dataclasses import dataclass, replace
from enum import Enum

import jax
import psutil

from minillama.engine.batches import Batches
from minillama.engine.generation.checkpoints import all_checkpoint_bytes
from minillama.errors import OptionError, ResourceError
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.gguf.memory_pages import lock_pages
from minillama.kernels import cpu_kernels_error
from minillama.model import Config, cache_bytes
from minillama.model.layer_kinds import LatentAttention, attention_of
from minillama.model.layers.attention import tile_size

logger = logging.getLogger("minillama")

CONTEXT_STEP = 256  # a context is a multiple of this, as in llama.cpp


class Storage(Enum):
    """The storage of the weights."""

    MAPPED = "mapped from the file"  # pages of it, which the system may drop and read again
    READ = "read into memory"
    COPIED = "copied to the device"


@dataclass(frozen=True)
class Memory:
    """Predicted bytes by part."""

    weights: int
    cache: int  # at the full context; it starts small and grows with the text
    compute: int
    storage: Storage = Storage.MAPPED  # of the weights
    locked: bool = False  # the weights, so that they are never swapped out

    def __str__(self) -> str:
        storage = self.storage.value + (", locked" if self.locked else "")
        return (
            f"weights {shown_bytes(self.weights)} ({storage}), cache {shown_bytes(self.cache)} when full, "
            f"compute {shown_bytes(self.compute)}"
        )

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute


def available_bytes(device: jax.Device) -> int:
    """Free memory of a device; of the machine for a CPU."""
    if device.platform == "cpu":
        return psutil.virtual_memory().available
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", 1 << 62) - stats.get("bytes_in_use", 0)


def predict(
    config: Config, weights: int, ctx_size: int, types: CacheTypes, batches: Batches, device: jax.Device | None
) -> Memory:
    """Memory by formula: tensors, the cache with its checkpoints, the largest chunk's activations.

    Attention holds, of every query, the scores with one tile of keys and their exponentials, and twice the mean of the
    values; the processor's own kernel only the mean. So compute memory does not depend on the context. Experts hold
    the input and three hidden states of every choice of every token.
    """
    chunk = batches.within(ctx_size).ubatch_size
    heads, mixed = _widest_attention(config)
    attention = 4 * chunk * mixed
    if device is not None and (device.platform != "cpu" or cpu_kernels_error() is not None):
        attention += 4 * chunk * (2 * heads * min(tile_size(device.platform), ctx_size) + mixed)
    per_layer = 2 * config.block_count * config.per_layer_length
    width, experts = config.embedding_length, config.experts
    choices = experts.used * (width + 3 * (experts.feed_forward_length or width))
    widest = 4 * chunk * (2 * width + max(6 * width, choices) + per_layer) + 4 * config.vocab_size
    cache = cache_bytes(config, ctx_size, types, chunk=chunk) + all_checkpoint_bytes(config, ctx_size, types, chunk)
    return Memory(weights, cache, attention + widest)


def _widest_attention(config: Config) -> tuple[int, int]:
    """The most query heads of a layer, and the most numbers they give.

    Of latent attention with the queries, which are as long as the latents.
    """
    heads, numbers = [0], [0]
    for layer in set(config.layers):
        if (attention := attention_of(layer)) is not None:
            length = attention.value_length + (attention.key_length if isinstance(layer, LatentAttention) else 0)
            heads.append(attention.head_count)
            numbers.append(attention.head_count * length)
    return max(heads), max(numbers)


def choose_context(
    config: Config, weights: int, ctx_size: int, types: CacheTypes, batches: Batches, device: jax.Device | None
) -> tuple[int, Memory]:
    """Settle the context's size and check that everything fits.

    ctx_size: wanted positions, rounded up to a multiple of 256; 0 for the training context, or less
    if memory is short, with a warning.
    device: the device with the memory; None where workers compute, whose memory is unknown.
    Raises OptionError for an impossible size or type, ResourceError where it cannot fit.
    """
    if ctx_size < 0:
        raise OptionError(
            f"ctx_size is {ctx_size}; expected a number of tokens, or 0 for the model's own {config.context_length}"
        )
    free = 1 << 62 if device is None else available_bytes(device)
    wanted = round_up(ctx_size or config.context_length)
    memory = predict(config, weights, wanted, types, batches, device)
    if ctx_size == 0:
        while memory.total > 0.8 * free and wanted > CONTEXT_STEP:
            wanted = round_up(wanted // 2)
            memory = predict(config, weights, wanted, types, batches, device)
        if wanted < config.context_length:
            logger.warning(
                "context of %d tokens in place of the model's %d, to fit %s of free memory; ask for more with ctx_size",
                wanted, config.context_length, shown_bytes(free),
            )  # fmt: skip
    if memory.total > free:
        raise ResourceError(
            f"a context of {wanted} tokens needs {shown_bytes(memory.total)} (weights {shown_bytes(memory.weights)}, "
            f"cache {shown_bytes(memory.cache)}, compute {shown_bytes(memory.compute)}), but {shown_bytes(free)} are "
            "free; choose a smaller ctx_size, ubatch_size or model"
        )
    if wanted > round_up(config.context_length):
        logger.warning("ctx_size=%d exceeds the %d tokens the model was trained on", wanted, config.context_length)
    return wanted, memory


def record_storage(memory: Memory, file: GGUF, *, in_place: bool, use_mmap: bool, use_mlock: bool) -> Memory:
    """Lock the weights if `use_mlock` is set and possible, and record their storage.

    in_place: devices read the weights in the opened file, and have no copies of their own.
    """
    if use_mlock and not in_place:
        logger.warning("use_mlock has no effect: the weights are copied to the device")
    locked = use_mlock and in_place and lock_weights(file)
    storage = Storage.COPIED if not in_place else Storage.MAPPED if use_mmap else Storage.READ
    memory = replace(memory, storage=storage, locked=locked)
    logger.info("memory: %s", memory)
    return memory


def lock_weights(file: GGUF) -> bool:
    """Lock a file in memory.

    Logs a warning and returns False if the system forbids it.
    """
    try:
        lock_pages(file.mapped.values())
    except ResourceError as problem:
        logger.warning("%s; going on without", problem)
        return False
    return True


def give_back() -> None:
    """Return memory that glibc keeps after compiling and parsing to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def round_up(positions: int) -> int:
    """The next multiple of the context step."""
    return -(-positions // CONTEXT_STEP) * CONTEXT_STEP


def shown_bytes(size: int) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
