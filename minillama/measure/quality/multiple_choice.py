"""Multiple choice: the text with the largest mean log-probability of its scored tokens is chosen.

The common prefix of the texts of a task is read once, and several tasks are computed together.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minillama.array_types import Bool, Int32
from minillama.engine.backends.base import Handle
from minillama.engine.backends.finite import check_finite
from minillama.engine.backends.programs import text_programs
from minillama.engine.llm import LLM
from minillama.errors import OptionError
from minillama.measure.quality.task_files import Task
from minillama.measure.quality.text_windows import Stop, check_model, never_stop, padded

MIN_BUCKET = 16  # shorter texts are padded to this length, so that few programs are compiled
_MIN_TOKENS_AFTER_CHOICE = 3  # with fewer tokens after the choice, the choice is scored too
_Z = 1.95996398454  # 95 % of a normal distribution is within this many standard deviations


@dataclass(frozen=True)
class ChoiceResult:
    """The choice in one task, and the accuracy so far."""

    task: int  # tasks so far
    tasks: int  # in all
    scores: tuple[float, ...]  # mean log-probability of each text's scored tokens, in nats
    chosen: int
    right: frozenset[int]
    correct: int  # correct choices so far
    texts: int  # of the tasks so far

    @property
    def accuracy(self) -> float:
        """Share of correct choices so far, 0 to 1."""
        return self.correct / self.task

    @property
    def error(self) -> float:
        """Standard error of the accuracy."""
        return deviation_of_share(self.accuracy, self.task)

    @property
    def chance(self) -> float:
        """Expected accuracy of random choices: tasks / texts, as in llama.cpp."""
        return self.task / self.texts

    @property
    def chance_error(self) -> float:
        """Standard error of `chance`."""
        return deviation_of_share(self.chance, self.task)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy (Wilson 1927)."""
        share, z = self.accuracy, _Z * _Z / self.task
        half = z * math.sqrt(self.task * (4 * share * (1 - share) + z)) / (2 * _Z)
        return (share + z / 2 - half) / (1 + z), (share + z / 2 + half) / (1 + z)


def deviation_of_share(share: float, count: int) -> float:
    """Standard error of a share of `count` cases; 0 for one case."""
    return math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else 0.0


def running_choices(llm: LLM, tasks: Sequence[Task], stop: Stop = never_stop) -> Iterator[ChoiceResult]:
    """Choose in one task after the other, and yield each result.

    stop: checked before each pass; true ends the iteration.
    Raises OptionError for texts longer than the context, UnsupportedError for models that append EOS to texts.
    """
    check_model(llm, 0)
    tokenised = [tokenise_task(llm, task) for task in tasks]
    for number, task in enumerate(tokenised, 1):
        if task.length > llm.ctx_size:
            raise OptionError(
                f"task {number} does not fit in the context: it takes {task.length} tokens of {llm.ctx_size}"
            )
    return _run(llm, tasks, tokenised, stop)


def _run(llm: LLM, tasks: Sequence[Task], tokenised: Sequence["TokenisedTask"], stop: Stop) -> Iterator[ChoiceResult]:
    done = correct = texts = 0
    while done < len(tasks) and not stop():
        group = _group_size(tokenised[done:], llm.batches.ubatch_size)
        for scores in _scores(llm, tokenised[done : done + group]):
            task, chosen = tasks[done], int(np.argmax(scores))
            done, texts, correct = done + 1, texts + len(scores), correct + (chosen in task.right)
            yield ChoiceResult(done, len(tasks), scores, chosen, task.right, correct, texts)


@dataclass(frozen=True)
class TokenisedTask:
    """A tokenised task: its texts, the length of their common prefix, and the scored ranges.

    `shared` leading tokens are read once. Of each text, tokens first ... last - 1 are scored.
    """

    texts: tuple[tuple[int, ...], ...]
    shared: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of tokens of the longest text."""
        return max(map(len, self.texts))

    @property
    def suffix(self) -> int:
        """Most tokens of a text to read after the shared ones."""
        return max(self.last) - 1 - self.shared


def tokenise_task(llm: LLM, task: Task) -> TokenisedTask:
    """Tokenise a task and find its scored tokens.

    A choice within a sentence is scored by the tokens after it; if these are few, by its own tokens too.
    """
    texts = tuple(tuple(llm.tokenizer.encode(text)) for text in task.texts)
    common = next(
        (place for place, tokens in enumerate(zip(*texts, strict=False)) if len(set(tokens)) > 1),
        min(map(len, texts)),
    )
    first, last = [common] * len(texts), [len(text) for text in texts]
    if task.scored_after is not None:
        if min(last) - common > _MIN_TOKENS_AFTER_CHOICE:
            first = [len(llm.tokenizer.encode(front)) for front in task.scored_after]
        last = [end - 1 if end - start > 1 else end for start, end in zip(first, last, strict=True)]
    # the first token of a text has no prediction, and at least one token is scored
    first = [max(1, min(start, end - 1)) for start, end in zip(first, last, strict=True)]
    return TokenisedTask(texts, max(0, min(common, *first) - 1), tuple(first), tuple(last))


def _bucket(size: int, least: int = 1) -> int:
    """The next power of two, so that few programs are compiled."""
    return max(least, 1 << (size - 1).bit_length()) if size > 0 else 0


def _group_size(tokenised: Sequence[TokenisedTask], ubatch_size: int) -> int:
    """Number of next tasks that fit in one pass, at least one."""
    count = texts = shared = suffix = 0
    for task in tokenised:
        texts, shared, suffix = texts + len(task.texts), max(shared, task.shared), max(suffix, task.suffix)
        fronts = _bucket(count + 1) * _bucket(shared, MIN_BUCKET)
        if count and max(fronts, _bucket(texts) * _bucket(suffix, MIN_BUCKET)) > ubatch_size:
            break
        count += 1
    return count


def _scores(llm: LLM, group: Sequence[TokenisedTask]) -> Iterator[tuple[float, ...]]:
    """Mean log-probabilities of the texts of each task, computed together."""
    llm.check_file()
    owners = np.array([number for number, task in enumerate(group) for _ in task.texts], np.int32)
    owners = padded(owners, _bucket(len(owners)))
    ids, targets, scored = _suffixes(group, len(owners))
    cache = _prefill_shared(llm, group, owners, ids.shape[1])
    states, _ = llm.backend.call(text_programs.hidden, cache, ids, None)
    nll = np.asarray(llm.backend.call(text_programs.nll, states, targets, 0)).astype(np.float64)
    check_finite(nll[scored])
    means = -np.sum(nll, axis=1, where=scored) / np.maximum(1, np.sum(scored, axis=1))
    row = 0
    for task in group:
        yield tuple(means[row : row + len(task.texts)].tolist())
        row += len(task.texts)


def _prefill_shared(llm: LLM, group: Sequence[TokenisedTask], owners: Int32[np.ndarray, "texts"], room: int) -> Handle:
    """Prefill the shared prefixes: a cache with a row per text and `room` free positions."""
    longest = _bucket(max(task.shared for task in group), MIN_BUCKET)
    ids = np.zeros((_bucket(len(group)), longest), np.int32)
    lengths = np.zeros(len(ids), np.int32)
    for row, task in enumerate(group):
        ids[row, : task.shared], lengths[row] = task.texts[0][: task.shared], task.shared
    cache = llm.backend.new_cache(longest + room, llm.cache_types, len(ids))
    for start in range(0, longest, llm.batches.ubatch_size):
        part = ids[:, start : start + llm.batches.ubatch_size]
        valid = np.clip(lengths - start, 0, part.shape[1]).astype(np.int32)
        _, cache = llm.backend.call(text_programs.hidden, cache, part, valid)
    return llm.backend.call(text_programs.gather_rows, cache, owners)


def _suffixes(
    group: Sequence[TokenisedTask], rows: int
) -> tuple[Int32[np.ndarray, "texts T"], Int32[np.ndarray, "texts T"], Bool[np.ndarray, "texts T"]]:
    """Token ids after the shared prefix, their targets, and a mask of scored positions."""
    size = _bucket(max(task.suffix for task in group), MIN_BUCKET)
    ids, targets = np.zeros((rows, size), np.int32), np.zeros((rows, size), np.int32)
    scored = np.zeros((rows, size), bool)
    row = 0
    for task in group:
        for text, first, last in zip(task.texts, task.first, task.last, strict=True):
            count = last - 1 - task.shared
            ids[row, :count], targets[row, :count] = text[task.shared : last - 1], text[task.shared + 1 : last]
            scored[row, first - 1 - task.shared : count] = True
            row += 1
    return ids, targets, scored
