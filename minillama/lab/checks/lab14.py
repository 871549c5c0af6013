"""Graded items of lab 14: reused tokens, the changing line, blocks."""

import copy
import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from minillama.lab.error_text import one_line
from minillama.lab.grading.check import Answer, Mistake, NotYet, Score, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, one_of
from minillama.lab.language import translate
from minillama.lab.serving.batch_simulator import common_prefix
from minillama.lab.serving.cache_blocks import CacheBlocks, NoBlocksError

LAB = "14"
Prompts = Sequence[Sequence[int]]


def _cached(prompts: Prompts, *, last: bool = False, whole: bool = False, own: bool = False,
            anywhere: bool = False, first: bool = False) -> np.ndarray:  # fmt: skip
    """The right counts; each keyword makes one mistake."""
    found = []
    for place, prompt in enumerate(prompts):
        earlier = prompts[: place + 1] if own else prompts[:1] if first and place else prompts[:place]
        earlier = earlier[-1:] if last else earlier
        if anywhere:
            counts = [len(set(prompt) & set(other)) for other in earlier]
        else:
            counts = [common_prefix(prompt, other) for other in earlier]
        found.append(min(max(counts, default=0), len(prompt) if whole else len(prompt) - 1))
    return np.array(found)


CACHED_MISTAKES = (
    Mistake("a prompt is not cached before it comes: compare with the earlier ones only",
            lambda p: _cached(p, own=True)),
    Mistake("any earlier prompt may have the longest beginning, not only the one before",
            lambda p: _cached(p, last=True)),
    Mistake("all earlier prompts count, not only the first one", lambda p: _cached(p, first=True)),
    Mistake("the last token must be run for its logits: one less than the prompt at most",
            lambda p: _cached(p, whole=True)),
    Mistake("the tokens must be equal *from the beginning*; later ones have seen other tokens before them",
            lambda p: _cached(p, anywhere=True)),
    Mistake("the tokens that are reused, not those that must be run",
            lambda p: np.array(list(map(len, p))) - _cached(p)),
)  # fmt: skip


def _prompts(random: np.random.Generator) -> list[list[int]]:
    """Eight prompts; some begin as an earlier one does."""
    found = [random.integers(1, 9, 6).tolist()]
    while len(found) < 8:
        beginning = found[int(random.integers(len(found)))][: int(random.integers(0, 7))]
        found.append([*beginning, *random.integers(1, 9, int(random.integers(1, 5))).tolist()])
    return found


@graded(LAB, "1. tokens that a prefix cache saves")
def cached_tokens(answer: Answer) -> str:
    """`cached_tokens(prompts) -> [tokens]`, one prompt after the other."""
    cases = (
        ([[1, 2, 3, 4, 5], [1, 2, 3, 9, 9, 8], [7, 1, 2, 3], [1, 2, 3, 4, 6, 7], [1, 2, 3, 9, 4]]),
        ([[5, 5, 5], [5, 5, 5], [5, 5, 5, 5, 6], [6, 5, 5, 5, 5], [5, 5, 5, 5, 6, 7]]),
    )
    for prompts in (*cases, _prompts(hidden_random(1401))):
        case = translate("{count} prompts", count=len(prompts))
        expect_equal(answer, (prompts,), _cached, CACHED_MISTAKES, case=case)
    return "the longest beginning of any earlier prompt, short of the last token."


_LINES = (([12, 30, 8, 40, 9], [47, 44, 91]), ([5, 9, 9, 20, 6], [30, 6, 44]), ([20, 6, 50], [27, 20, 29]))


def _line(lengths: Sequence[int], cached: Sequence[int], *, offset: int = 0, worst: str = "min") -> int:
    """The line in which the fewest cached tokens end."""
    reused = {"min": min, "max": max, "first": lambda values: values[0]}[worst](cached)
    ends = list(accumulate(lengths))
    return next((place for place, end in enumerate(ends) if reused < end), len(lengths)) + offset


def _lines(random: np.random.Generator) -> tuple[list[int], list[int]]:
    """Lengths of six lines, and tokens that three turns found in the cache."""
    lengths = random.integers(3, 60, 6).tolist()
    return lengths, random.integers(0, sum(lengths), 3).tolist()


@graded(LAB, "2. the line that changes")
def changing_line(answer: Answer) -> str:
    """`changing_line(lengths, cached) -> index` of the first line that differs from turn to turn."""
    mistakes = (
        Mistake("lines are counted from 0", lambda n, c: _line(n, c, offset=1)),
        Mistake("this line is still the same: the next one changes", lambda n, c: _line(n, c, offset=-1)),
        Mistake(
            "the turn with the *fewest* reused tokens ends at the first change", lambda n, c: _line(n, c, worst="max")
        ),
        Mistake("one turn may share a digit by chance: look at all turns", lambda n, c: _line(n, c, worst="first")),
    )
    for lengths, cached in (*_LINES, *map(_lines, map(hidden_random, (1402, 1412)))):
        case = translate("lines of {lengths} tokens and {cached} cached", lengths=lengths, cached=cached)
        expect_equal(answer, (lengths, cached), _line, mistakes, case=case)
    return "counts alone name the line."


def _waste(lengths: Sequence[int], block: int) -> int:
    return sum(math.ceil(length / block) * block - length for length in lengths)


@graded(LAB, "3. tokens that blocks waste")
def waste(answer: Answer) -> str:
    """`waste(lengths, block) -> tokens` that are reserved and not used."""
    mistakes = (
        Mistake("that is what is reserved: subtract the tokens in use", lambda n, b: _waste(n, b) + sum(n)),
        Mistake("each text has blocks of its own: round up each length, not the sum", lambda n, b: -sum(n) % b),
        Mistake("a length that fills its blocks needs no further block", lambda n, b: sum(b - x % b for x in n)),
        Mistake("round up: a block that is begun is reserved whole", lambda n, b: sum(x % b for x in n)),
        Mistake("tokens, not blocks", lambda n, b: sum(math.ceil(x / b) for x in n)),
    )
    cases = (([5, 16, 33], 16), ([100, 1, 64, 63], 64), ([700, 30, 255], 1024))
    hidden = hidden_cases(1403, lambda random: random.integers(1, 900, 6).tolist(), one_of(16, 32, 48, 128))
    for lengths, block in (*cases, *hidden):
        case = translate("texts of {lengths} and blocks of {block}", lengths=lengths, block=block)
        expect_equal(answer, (lengths, block), _waste, mistakes, case=case)
    return "half a block for each text on average; a slot is a block of the whole context."


@graded(LAB, "4. a release that shares")
def release(answer: Answer) -> str:
    """`release(blocks, text)`: 400 random operations, and after each all rules hold."""
    random = hidden_random(1404)
    for size in (1, 4):
        blocks, numbers = CacheBlocks(24, size), iter(range(10_000))
        for _ in range(200):
            if blocks.tables and random.random() < 0.5:
                _release(answer, blocks, int(random.choice(list(blocks.tables))))
            else:
                length = int(random.integers(1, 6 * size))
                tokens = [1] * int(random.integers(0, length + 1)) + random.integers(1, 4, length).tolist()
                try:
                    blocks.add(next(numbers), tokens)
                except NoBlocksError:
                    continue
        for text in list(blocks.tables):
            _release(answer, blocks, text)
        if len(blocks.free) != 24:
            lost = 24 - len(blocks.free)
            raise NotYet(translate("all texts are released, and {lost} of 24 blocks are not free", lost=lost))
    return "400 operations: no block is lost, free twice, or free while it is read."


def _release(answer: Answer, blocks: CacheBlocks, text: int) -> None:
    before = copy.deepcopy(blocks)
    try:
        answer(blocks, text)
    except NotImplementedError:
        raise NotYet("still the empty stub; fill in the cell above, run it, then run this cell again") from None
    except Exception as error:
        raise NotYet(translate("your function raised {error}{suffix}", error=one_line(error), suffix="")) from None
    if text in blocks.tables:
        raise NotYet("the text still has its table: take it out of `blocks.tables`")
    if {name: table for name, table in before.tables.items() if name != text} != blocks.tables:
        raise NotYet("the table of another text has changed")
    if problems := blocks.problems():
        raise NotYet(problems[0])


ITEMS = (cached_tokens, changing_line, waste, release)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
