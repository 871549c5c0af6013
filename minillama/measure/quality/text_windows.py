"""Windows of a text, and hidden states at their scored positions.

The method is llama.cpp's. Windows do not overlap and are evaluated independently. If the model needs BOS, it replaces
the first token of each window. Only the second half is scored, so that each token has half a window of context.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jax import Array, lax

from minillama.array_types import Float, Int32, Shaped
from minillama.engine.backends.base import Handle
from minillama.engine.backends.programs import text_programs
from minillama.engine.llm import LLM
from minillama.engine.loading.memory_budget import round_up
from minillama.errors import OptionError, UnsupportedError

logger = logging.getLogger("minillama")

Stop = Callable[[], bool]
Result = TypeVar("Result")


def never_stop() -> bool:
    """A stop condition that is never true."""
    return False


@dataclass(frozen=True)
class Windows:
    """Windows of a text; the token after each position from `first` on is scored."""

    text: Int32[np.ndarray, "windows T"]
    bos: int | None  # replaces the first token of each window
    first: int
    per_pass: int  # windows in one batch

    @property
    def count(self) -> int:
        return self.text.shape[0]

    @property
    def size(self) -> int:
        """Number of tokens of a window."""
        return self.text.shape[1]

    @property
    def scored(self) -> int:
        """Number of scored tokens of a window."""
        return self.size - 1 - self.first

    @property
    def targets(self) -> Int32[np.ndarray, "windows scored"]:
        """The scored tokens."""
        return self.text[:, self.first + 1 :]

    def ids(self, window: int, count: int) -> Int32[np.ndarray, "count T"]:
        """The model input of some windows, with BOS."""
        read = self.text[window : window + count].copy()
        if self.bos is not None:
            read[:, 0] = self.bos
        return read


@dataclass(frozen=True)
class ScoredStates:
    """Hidden states of some windows at some scored positions.

    Windows window ... window + count - 1, positions start ... stop - 1. There are more rows than `count` if the last
    batch is not full.
    """

    window: int
    count: int
    start: int
    stop: int
    rows: int
    states: Handle  # of more positions; the first scored one has index `first`
    first: int

    @property
    def hidden(self) -> Float[Array, "B T D"]:
        """The states as an array, if they are in this process."""
        return lax.slice_in_dim(self.states, self.first, self.first + self.stop - self.start, axis=1)

    def of(self, rows: Shaped[np.ndarray, "windows scored *rest"]) -> Shaped[np.ndarray, "B T *rest"]:
        """The part of an array over all windows and scored positions that belongs here, zero-padded."""
        here = rows[self.window : self.window + self.count, self.start : self.stop]
        return padded(here, self.rows)


def chunked(llm: LLM, ids: Sequence[int], ctx_size: int = 512, chunks: int | None = None) -> Windows:
    """The windows of llama-perplexity: floor(tokens / ctx_size), at most `chunks`; the rest is dropped.

    Raises OptionError for less than two windows of text, and UnsupportedError for models that append EOS to texts.
    """
    check_model(llm, ctx_size)
    if ctx_size < 4:
        raise OptionError(f"ctx_size is {ctx_size}; expected at least 4, because the second half is scored")
    found = _checked_ids(llm, ids, 2 * ctx_size, ctx_size)
    count = _limited(len(found) // ctx_size, chunks)
    text = found[: count * ctx_size].reshape(count, ctx_size)
    return windows_of(llm, text, ctx_size // 2)


def strided(llm: LLM, ids: Sequence[int], stride: int, ctx_size: int = 512, chunks: int | None = None) -> Windows:
    """Overlapping windows of ctx_size + stride / 2 tokens at a distance of `stride`.

    The last `stride` tokens of each window are scored, as in llama-perplexity with a stride.
    Raises the errors of `chunked`, and OptionError for a stride larger than the context.
    """
    size = ctx_size + stride // 2
    check_model(llm, size)
    if not 1 <= stride <= ctx_size:
        raise OptionError(f"the stride is {stride}; expected 1 to the context of {ctx_size}")
    found = _checked_ids(llm, ids, 2 * size, size)
    count = _limited(-(-(len(found) - size) // stride), chunks)
    text = np.lib.stride_tricks.sliding_window_view(found, size)[: count * stride : stride]
    return windows_of(llm, text, size - stride - 1)


def windows_of(llm: LLM, text: Int32[np.ndarray, "windows T"], first: int) -> Windows:
    """Windows of a text that is already split; a batch has at most ubatch_size tokens."""
    bos = llm.tokenizer.bos if llm.tokenizer.add_bos else None
    return Windows(text, bos, first, max(1, llm.batches.ubatch_size // text.shape[1]))


def check_model(llm: LLM, ctx_size: int) -> None:
    """Raise an error for models that append EOS to texts, and for too large windows."""
    if llm.tokenizer.add_eos:
        raise UnsupportedError(
            f"{llm.path.name} appends EOS to every text (tokenizer.ggml.add_eos_token), for which windows have no room"
        )
    if ctx_size > llm.ctx_size:
        raise OptionError(f"windows of {ctx_size} tokens, but a context of {llm.ctx_size}; load with a larger ctx_size")
    trained = llm.config.context_length
    if trained < ctx_size <= round_up(trained):  # beyond that, loading the model has warned
        logger.warning("model was trained on only %d context tokens (%d specified)", trained, ctx_size)


def _limited(count: int, chunks: int | None) -> int:
    if chunks is not None and chunks < 1:
        raise OptionError(f"chunks is {chunks}; expected at least 1, or None for all {count}")
    return count if chunks is None else min(chunks, count)


def _checked_ids(llm: LLM, ids: Sequence[int], least: int, size: int) -> Int32[np.ndarray, "tokens"]:
    if len(ids) < least:
        raise OptionError(
            f"you need at least {least} tokens to evaluate perplexity with a context of {size}; the text has only "
            f"{len(ids)}, give a longer one or a smaller ctx_size"
        )
    found = np.asarray(ids, np.int32)
    if found.min() < 0 or found.max() >= llm.config.vocab_size:
        wrong = found.min() if found.min() < 0 else found.max()
        raise OptionError(f"token id {wrong} is outside the vocabulary of {llm.config.vocab_size}")
    return found


def hidden_states(llm: LLM, windows: Windows, stop: Stop = never_stop) -> Iterator[ScoredStates]:
    """Run the model over all windows in batches of at most ubatch_size tokens.

    stop: checked before each batch; true ends the iteration.
    """
    batch = min(windows.per_pass, windows.count)
    cache = llm.backend.new_cache(windows.size, llm.cache_types, batch)
    part = max(1, llm.batches.ubatch_size // batch)
    for window in range(0, windows.count, batch):
        count = min(batch, windows.count - window)
        ids = padded(windows.ids(window, count), batch)
        llm.check_file()
        if window and llm.config.is_recurrent:  # its states cannot go back
            cache = llm.backend.new_cache(windows.size, llm.cache_types, batch)
        cache = llm.backend.truncate(cache, np.zeros(batch, np.int32))
        end = windows.first + windows.scored  # predictions of the last tokens are not needed
        for at in range(0, end, part):
            if stop():
                return
            hidden, cache = llm.backend.call(
                text_programs.hidden, cache, ids[:, at : min(at + part, windows.size)], None
            )
            low, high = max(at, windows.first), min(at + part, end)
            if low < high:
                yield ScoredStates(window, count, low - windows.first, high - windows.first, batch, hidden, low - at)


def padded(rows: Shaped[np.ndarray, "n *rest"], size: int) -> Shaped[np.ndarray, "size *rest"]:
    """The rows, padded with zero rows to `size`."""
    return np.pad(rows, ((0, size - len(rows)), *((0, 0) for _ in rows.shape[1:])))
