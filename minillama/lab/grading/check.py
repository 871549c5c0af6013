"""Graded exercises: a check prints PASS or names the likely mistake.

A check never raises, whatever the learner's function does, unless a grader wants it: `Item.require`."""

import copy
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from minillama.lab import lab_record
from minillama.lab.error_text import one_line
from minillama.lab.grading.check_result import NotPassed, Result, is_strict
from minillama.lab.grading.course_seed import course_seed, with_course_seed
from minillama.lab.grading.equality import is_close, is_equal, is_unchanged
from minillama.lab.grading.own_work import Watch, is_of_the_package
from minillama.lab.language import message, translate
from minillama.lab.widgets.figure import text_table

Answer = Callable[..., object]


class NotYet(Exception):
    """One sentence for the learner, raised inside a check and caught there."""


@dataclass(frozen=True)
class Item:
    """One graded exercise. Call it with the learner's function, or `require` that it passes."""

    lab: str
    name: str
    title: str
    examine: Callable[[Answer], str]

    def __call__(self, answer: object) -> Result:
        """Check an answer, record the result and return it.

        With MINILLAMA_STRICT=1 a failed check raises NotPassed."""
        return self._recorded(answer, is_strict())

    def require(self, answer: object, seed: int | None = None) -> Result:
        """Result of a check that must pass; else NotPassed, an AssertionError, with its message.

        seed: of the hidden inputs, in place of that of the environment."""
        with with_course_seed(seed):
            course_seed()  # a wrong seed is the grader's mistake, not the learner's
            return self._recorded(answer, True)

    def _recorded(self, answer: object, must_pass: bool) -> Result:
        result = self._result(answer)
        lab_record.write(
            self.lab,
            "checks",
            self.name,
            {"passed": result.passed, "message": result.message, "written": lab_record.now()},
        )
        if must_pass and not result.passed:
            raise NotPassed(str(result))
        return result

    def _result(self, answer: object) -> Result:
        """The result in the learner's language."""
        title = translate(self.title)
        if not callable(answer):
            kind = type(answer).__name__
            return Result(title, False, translate("pass a function to the check, not a {kind}", kind=kind))
        watch = Watch()
        token = _watch.set(watch)
        try:
            praise = self.examine(watch.watched(answer))
            if is_of_the_package(answer):
                return Result(title, False, translate("that is minillama's own function; pass the one that you wrote"))
            if watch.borrowed:
                name = watch.borrowed[0]
                text = translate("your function calls the check's own `{name}`; write it yourself", name=name)
                return Result(title, False, text)
            return Result(title, True, translate(praise))
        except NotYet as reason:
            return Result(title, False, translate(str(reason)))
        except Exception as error:  # no kind of answer may end the notebook
            line = one_line(error)
            return Result(title, False, translate("the check cannot read this answer: {error}", error=line))
        finally:
            _watch.reset(token)


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


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)
_collected: ContextVar[list[Comparison] | None] = ContextVar("collected", default=None)


def compared(comparison: Comparison) -> Comparison:
    """Register a comparison for `comparisons`, and return it.

    From now on the learner's function must not call its right answer."""
    if (watch := _watch.get()) is not None:
        watch.forbid(comparison.right)
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
    suffix = _suffix(case)
    try:
        with _quiet():
            got = answer(*given)
    except NotImplementedError as error:
        raise NotYet(_stub(answer, error)) from None
    except Exception as error:
        line = one_line(error)
        raise NotYet(translate("your function raised {error}{suffix}", error=line, suffix=suffix)) from None
    if got is None:
        text = translate(
            "your function returned None{suffix}; does every way through it end in `return`?", suffix=suffix
        )
        raise NotYet(text)
    if not all(is_unchanged(mine, original) for mine, original in zip(given, arguments, strict=True)):
        raise NotYet(translate("your function changed its input{suffix}; work on a copy", suffix=suffix))
    return got


def _suffix(case: str) -> str:
    """The words that name a case at the end of a message."""
    return translate(" for {case}", case=translate(case)) if case else ""


def _stub(answer: Answer, error: BaseException) -> str:
    """Message that names the empty stub: the answer itself, or a function that it calls."""
    inner = traceback.extract_tb(error.__traceback__)[-1].name
    if inner != getattr(answer, "__name__", inner):
        return translate("your function calls `{name}`, which is still an empty stub", name=inner)
    return translate("still the empty stub; fill in the cell above, run it, then run this cell again")


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
        raise NotYet(translate(hint))
    raise NotYet(_difference(got, want, _suffix(case)))


def _difference(got: np.ndarray, want: np.ndarray, suffix: str) -> str:
    """Message about a wrong result without a known mistake."""
    if got.shape != want.shape:
        return translate(
            "the shape is {got} and should be {want}{suffix}", got=got.shape, want=want.shape, suffix=suffix
        )
    if not np.all(np.isfinite(got)) and np.all(np.isfinite(want)):
        return translate(
            "the result holds nan or infinity{suffix}; a division by zero, or exp of something large?", suffix=suffix
        )
    place = np.unravel_index(int(np.argmax(np.abs(got - want))), want.shape) if want.shape else ()
    where = translate(" at index {place}", place=tuple(int(i) for i in place)) if place else ""
    return translate(
        "wrong value{suffix}{where}: got {got:.6g}, want {want:.6g}",
        suffix=suffix, where=where, got=got[place], want=want[place],
    )  # fmt: skip


def as_array(value: object) -> np.ndarray:
    """The answer as a float64 array; raises NotYet if it is not numeric."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise NotYet(translate("the result should be numbers, and is a {kind}", kind=kind)) from None


@dataclass(frozen=True)
class Score:
    """A learner's score in one lab."""

    lab: str
    rows: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        solved = sum(state == "PASS" for _, state in self.rows)
        head = translate("lab {lab}: {solved} of {count} solved", lab=self.lab, solved=solved, count=len(self.rows))
        rows = [(translate(title), translate(state)) for title, state in self.rows]
        return f"{head}\n" + text_table((translate("exercise"), translate("state")), rows)

    __repr__ = __str__


def score(items: Sequence[Item]) -> Score:
    """Score of a lab's exercises, from its records."""
    rows = []
    for item in items:
        entry = lab_record.section(item.lab, "checks").get(item.name)
        passed = entry.get("passed") if isinstance(entry, dict) else None
        rows.append((item.title, message("not tried") if passed is None else "PASS" if passed else "not yet"))
    return Score(items[0].lab, tuple(rows))


def attempt(answer: Answer, *arguments: object) -> object:
    """Call the learner's function; return an error as one line.

    For cells that must also run while exercises are unsolved."""
    try:
        return answer(*arguments)
    except NotImplementedError:
        return translate("not written yet")
    except Exception as error:  # any error of the learner's code is shown in place of the answer
        return one_line(error)
