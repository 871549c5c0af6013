"""Graded exercises: a check prints PASS or names the likely mistake.

A check never raises, whatever the learner's function does."""

import copy
import html
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from minillama.lab import lab_record
from minillama.lab.error_text import one_line
from minillama.lab.widgets.figure import text_table

Answer = Callable[..., object]


class NotYet(Exception):
    """One sentence for the learner, raised inside a check and caught there."""


@dataclass(frozen=True)
class Result:
    """Result of a check on one answer."""

    title: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'not yet'}: {self.title}: {self.message}"

    __repr__ = __str__

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        colour, word = ("#009E73", "✔ PASS") if self.passed else ("#D55E00", "✘ not yet")
        block = (
            f'<div style="border-left:5px solid {colour};padding:6px 12px;margin:4px 0">'
            f'<b style="color:{colour}">{word}</b> <b>{html.escape(self.title)}</b><br>'
            f"{html.escape(self.message)}</div>"
        )
        return {"text/html": block, "text/plain": str(self)}


@dataclass(frozen=True)
class Item:
    """One graded exercise. Call it with the learner's function."""

    lab: str
    name: str
    title: str
    examine: Callable[[Answer], str]

    def __call__(self, answer: object) -> Result:
        """Check an answer, record the result and return it."""
        if callable(answer):
            try:
                result = Result(self.title, True, self.examine(answer))
            except NotYet as reason:
                result = Result(self.title, False, str(reason))
            except Exception as error:  # no kind of answer may end the notebook
                result = Result(self.title, False, f"the check cannot read this answer: {one_line(error)}")
        else:
            result = Result(self.title, False, f"pass a function to the check, not a {type(answer).__name__}")
        lab_record.write(
            self.lab,
            "checks",
            self.name,
            {"passed": result.passed, "message": result.message, "written": lab_record.now()},
        )
        return result


def graded(lab: str, title: str) -> Callable[[Callable[[Answer], str]], Item]:
    """Decorator: make a graded item of `examine(answer) -> praise`.

    `examine` raises NotYet for a wrong answer."""

    def wrap(examine: Callable[[Answer], str]) -> Item:
        return Item(lab, examine.__name__, title, examine)

    return wrap


@dataclass(frozen=True)
class Mistake:
    """A likely mistake: a function that makes it, and a hint."""

    hint: str
    wrong: Answer


@dataclass(frozen=True)
class Comparison:
    """One comparison of a check, with the right answer and the known mistakes.

    outcome: runs a function on the check's inputs and returns what is compared.
    """

    outcome: Callable[[Answer], object]
    right: Answer
    mistakes: Sequence[Mistake]
    tolerance: float = 0.0

    def accepts(self, got: object) -> bool:
        """True if an outcome equals that of the right answer."""
        return is_equal(got, self.outcome(self.right), self.tolerance)

    def hint(self, got: object) -> str | None:
        """Hint of the first mistake with this outcome; None if no mistake has it."""
        tolerance = max(self.tolerance, 1e-6)
        with _quiet():  # a warning would show the mistake's source
            found = (mistake for mistake in self.mistakes if is_equal(got, self.outcome(mistake.wrong), tolerance))
            return next((mistake.hint for mistake in found), None)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of numpy or others."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


_collected: ContextVar[list[Comparison] | None] = ContextVar("collected", default=None)


def compared(comparison: Comparison) -> Comparison:
    """Register a comparison for `comparisons`, and return it."""
    collected = _collected.get()
    if collected is not None:
        collected.append(comparison)
    return comparison


def comparisons(item: Item, right: Answer) -> list[Comparison]:
    """All comparisons that an item makes of a right answer."""
    collected: list[Comparison] = []
    token = _collected.set(collected)
    try:
        item.examine(right)
    finally:
        _collected.reset(token)
    return collected


def call(answer: Answer, *arguments: object, case: str = "") -> object:
    """Call the learner's function on copies of the arguments.

    An exception of the function becomes a NotYet with one sentence."""
    given = copy.deepcopy(arguments)
    suffix = f" for {case}" if case else ""
    try:
        with _quiet():
            got = answer(*given)
    except NotImplementedError as error:
        raise NotYet(_stub(answer, error)) from None
    except Exception as error:
        raise NotYet(f"your function raised {one_line(error)}{suffix}") from None
    if got is None:
        raise NotYet(f"your function returned None{suffix}; does every way through it end in `return`?")
    if not all(is_unchanged(mine, original) for mine, original in zip(given, arguments, strict=True)):
        raise NotYet(f"your function changed its input{suffix}; work on a copy")
    return got


def _stub(answer: Answer, error: BaseException) -> str:
    """Message that names the empty stub: the answer itself, or a function that it calls."""
    inner = traceback.extract_tb(error.__traceback__)[-1].name
    if inner != getattr(answer, "__name__", inner):
        return f"your function calls `{inner}`, which is still an empty stub"
    return "still the empty stub; fill in the cell above, run it, then run this cell again"


def expect_equal(
    answer: Answer,
    arguments: Sequence[object],
    right: Answer,
    mistakes: Sequence[Mistake] = (),
    *,
    tolerance: float = 0.0,
    case: str = "",
) -> None:
    """Raise NotYet with the matching hint unless `answer` equals `right`.

    `tolerance` is relative to the largest magnitude of the right answer; 0 means exact equality.
    """

    def outcome(function: Answer) -> np.ndarray:
        return as_array(function(*copy.deepcopy(tuple(arguments))))

    comparison = compared(Comparison(outcome, right, mistakes, tolerance))
    got, want = as_array(call(answer, *arguments, case=case)), outcome(right)
    if is_close(got, want, tolerance):
        return
    if hint := comparison.hint(got):
        raise NotYet(hint)
    suffix = f" for {case}" if case else ""
    if got.shape != want.shape:
        raise NotYet(f"the shape is {got.shape} and should be {want.shape}{suffix}")
    if not np.all(np.isfinite(got)) and np.all(np.isfinite(want)):
        raise NotYet(f"the result holds nan or infinity{suffix}; a division by zero, or exp of something large?")
    place = np.unravel_index(int(np.argmax(np.abs(got - want))), want.shape) if want.shape else ()
    where = f" at index {tuple(int(i) for i in place)}" if place else ""
    raise NotYet(f"wrong value{suffix}{where}: got {got[place]:.6g}, want {want[place]:.6g}")


def as_array(value: object) -> np.ndarray:
    """The answer as a float64 array; raises NotYet if it is not numeric."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise NotYet(f"the result should be numbers, and is a {type(value).__name__}") from None


def is_equal(got: object, want: object, tolerance: float) -> bool:
    """`is_close` for arrays, `==` for all other outcomes."""
    if isinstance(got, np.ndarray) and isinstance(want, np.ndarray):
        return is_close(got, want, tolerance)
    return bool(got == want)


def is_close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    """True if the shapes are equal and no difference exceeds the tolerance.

    `tolerance` is relative to the largest magnitude of `want`."""
    if got.shape != want.shape:
        return False
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return False
    scale = float(np.max(np.abs(want[finite]), initial=0.0))
    return bool(np.all(np.abs(got[finite] - want[finite]) <= tolerance * scale))


def is_unchanged(mine: object, original: object) -> bool:
    """True if the call did not change this argument."""
    if isinstance(mine, np.ndarray) and isinstance(original, np.ndarray):
        return bool(mine.shape == original.shape and np.array_equal(mine, original, equal_nan=mine.dtype.kind == "f"))
    if isinstance(mine, dict) and isinstance(original, dict):
        return mine.keys() == original.keys() and all(is_unchanged(mine[key], original[key]) for key in mine)
    if isinstance(mine, list | tuple) and isinstance(original, list | tuple):
        return len(mine) == len(original) and all(
            is_unchanged(one, other) for one, other in zip(mine, original, strict=True)
        )
    if isinstance(mine, int | float | str | bytes | bytearray):
        return bool(mine == original)
    return True


@dataclass(frozen=True)
class Score:
    """A learner's score in one lab."""

    lab: str
    rows: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        solved = sum(state == "PASS" for _, state in self.rows)
        return f"lab {self.lab}: {solved} of {len(self.rows)} solved\n" + text_table(("exercise", "state"), self.rows)

    __repr__ = __str__


def score(items: Sequence[Item]) -> Score:
    """Score of a lab's exercises, from its records."""
    rows = []
    for item in items:
        entry = lab_record.section(item.lab, "checks").get(item.name)
        passed = entry.get("passed") if isinstance(entry, dict) else None
        rows.append((item.title, "not tried" if passed is None else "PASS" if passed else "not yet"))
    return Score(items[0].lab, tuple(rows))


def attempt(answer: Answer, *arguments: object) -> object:
    """Call the learner's function; return an error as one line.

    For cells that must also run while exercises are unsolved."""
    try:
        return answer(*arguments)
    except NotImplementedError:
        return "not written yet"
    except Exception as error:  # any error of the learner's code is shown in place of the answer
        return one_line(error)
