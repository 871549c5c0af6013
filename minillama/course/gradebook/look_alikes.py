"""Exercises of two learners that look alike: a hint for a reader, not a proof.

Code is compared twice: with the learner's names, and with names numbered in the order of their use. A pair is left out
where both look like the solution, because there everyone must look alike.
"""

import ast
import io
import keyword
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from minillama.course.marking.lab_exercises import Exercise, all_labs
from minillama.course.marking.marks import LearnerMark, State

ALIKE = 0.9  # similarity of two answers that are listed
FORCED = 0.75  # similarity to the solution from which an answer says nothing
FEWEST_TOKENS = 24  # of an answer; shorter ones are alike by chance
GRAM = 4  # tokens that are compared together
LONGEST = 20_000  # characters of an answer


@dataclass(frozen=True)
class LookAlike:
    """Two answers that look alike."""

    lab: str
    item: str
    first: str
    second: str
    similarity: float
    same_names: bool  # the names are alike too
    codes: tuple[str, str]


@dataclass(frozen=True)
class _Answer:
    learner: str
    code: str
    named: Counter[tuple[str, ...]]
    numbered: Counter[tuple[str, ...]]


def look_alikes(marks: Sequence[LearnerMark]) -> list[LookAlike]:
    """Pairs of answers that look alike, the most similar first."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for mark in marks:
        for lab in mark.labs.values():
            for item in lab.items:
                if item.code and item.state is not State.NOT_TRIED and len(item.code) <= LONGEST:
                    groups.setdefault((lab.lab, item.item), []).append((mark.learner, item.code))
    exercises = {(each.lab, each.item): each for lab in all_labs().values() for each in lab.exercises}
    found = [pair for key, group in groups.items() for pair in _pairs(exercises[key], group)]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.lab, pair.item, pair.first, pair.second))


def _pairs(exercise: Exercise, group: Sequence[tuple[str, str]]) -> Iterator[LookAlike]:
    names = {exercise.function, *_parameters(exercise.stub)}
    solution = _answer("", exercise.solution, names)
    answers = [each for learner, code in group if (each := _answer(learner, code, names)) is not None]
    for one, other in combinations(answers, 2):
        for same_names in (True, False):
            mine, theirs = (each.named if same_names else each.numbered for each in (one, other))
            score = similarity(mine, theirs)
            if score < ALIKE:
                continue
            right = None if solution is None else solution.named if same_names else solution.numbered
            if right is not None and min(similarity(mine, right), similarity(theirs, right)) >= FORCED:
                continue
            codes = one.code, other.code
            yield LookAlike(exercise.lab, exercise.item, one.learner, other.learner, score, same_names, codes)
            break


def similarity(one: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> float:
    """Shared grams over all grams, from 0 to 1."""
    total = (one | other).total()
    return (one & other).total() / total if total else 0.0


def _answer(learner: str, code: str, given: set[str]) -> _Answer | None:
    """The grams of an answer; None if it is short or unreadable."""
    try:
        named = tokens(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    if len(named) < FEWEST_TOKENS:
        return None
    return _Answer(learner, code, _grams(named), _grams(numbered(named, given)))


def tokens(code: str) -> list[str]:
    """Tokens of code without comments, docstrings, annotations and layout."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.arg):
            node.annotation = None
    lines = io.StringIO(ast.unparse(tree)).readline
    layout = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER}
    return [token.string for token in tokenize.generate_tokens(lines) if token.type not in layout]


def numbered(named: Sequence[str], given: set[str]) -> list[str]:
    """The tokens with names numbered in the order of their use.

    given: names of the exercise, which stay."""
    numbers: dict[str, str] = {}
    return [
        numbers.setdefault(token, f"n{len(numbers)}")
        if token.isidentifier() and not keyword.iskeyword(token) and token not in given
        else token
        for token in named
    ]


def _grams(named: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(named[place : place + GRAM]) for place in range(len(named) - GRAM + 1))


def _parameters(stub: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(stub)):
        if isinstance(node, ast.arg):
            yield node.arg
