"""Graded items of the report: target, verdicts, trade-offs, a reviewed prediction.

The checks require reasons and recorded numbers and do not judge them; the rubric does. But a target that measurements
on record meet with ease is refused.
"""

import difflib
import math
from collections.abc import Callable, Iterable

from minillama.lab import lab_record
from minillama.lab.grading import decisions
from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, Score, call, compared, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.decisions import Limit, LookBack, Ratio, Target, TradeOff
from minillama.lab.grading.lab_results import Quantity, Results, measured, read_results, results_so_far

LAB = "12"
MIN_WORDS = 8  # of a reason


def _on_record(results: Results, lab: str, name: str, coming: Iterable[str] = ()) -> Quantity:
    """The measurement; raises NotYet with similar names if there is none.

    coming: names that the lab will measure."""
    if (found := measured(results, lab, name)) is not None:
        return found
    if lab not in results and not coming:
        raise NotYet(f"there is nothing on record of lab {lab!r}; on record: {', '.join(results) or 'no lab'}")
    if lab in results and results[lab].problems:
        raise NotYet(f"lab {lab} has no measurement {name!r} on record: {results[lab].problems[0]}")
    names = [*coming, *(results[lab].measurements if lab in results else ())]
    near = difflib.get_close_matches(name, names, 3, 0.3) or names[:5]
    raise NotYet(f"lab {lab} has no measurement {name!r} on record; did you mean {' or '.join(map(repr, near))}?")


def _reasoned(text: object, what: str) -> None:
    if not isinstance(text, str) or decisions.word_count(text) < MIN_WORDS:
        raise NotYet(f"{what}: say why in a sentence, of {MIN_WORDS} words or more")


def _kind(value: object, wanted: type, what: str) -> None:
    if not isinstance(value, wanted):
        raise NotYet(f"{what} should be a {wanted.__name__}, and is a {type(value).__name__}")


@graded(LAB, "1. a target with numbers")
def target(answer: Answer) -> str:
    """`target() -> Target` with two limits or more, each on a measurement that is on record."""
    got = call(answer)
    _kind(got, Target, "the answer")
    assert isinstance(got, Target)
    if not isinstance(got.name, str) or not got.name.strip():
        raise NotYet(f"the target has no name; for example {', '.join(map(repr, decisions.TARGETS))}")
    if not isinstance(got.limits, tuple | list) or len(got.limits) < 2:
        raise NotYet("a target needs two limits or more: with a single limit there is nothing to trade off")
    results = results_so_far()
    for limit in got.limits:
        _kind(limit, Limit, "each limit")
        ends = [end for end in (limit.at_least, limit.at_most) if end is not None]
        if len(ends) != 1:
            raise NotYet(
                f"{limit.measurement!r}: give either at_least or at_most, a number without a side says nothing"
            )
        if not isinstance(ends[0], int | float) or not math.isfinite(ends[0]) or ends[0] <= 0:
            raise NotYet(f"{limit.measurement!r}: the limit is {ends[0]!r}; it should be a positive number")
        if limit.lab != LAB or limit.measurement not in decisions.OWN_RUN:
            _on_record(results, limit.lab, limit.measurement, decisions.OWN_RUN if limit.lab == LAB else ())
        _reasoned(limit.because, f"`because` of the limit on {limit.measurement!r}")
        if not any(character.isdigit() for character in limit.because):
            raise NotYet(
                f"`because` of the limit on {limit.measurement!r}: say which number of the users or of their machine "
                "the limit comes from, in digits"
            )
    if len({(limit.lab, limit.measurement) for limit in got.limits}) < 2:
        raise NotYet("both limits are on the same measurement: what else matters to this target?")
    if decisions.is_too_easy(got, results):
        raise NotYet(
            f"the measurements on record are {decisions.EASY:g} times better than every limit, or more: a target that "
            "is chosen after them and cannot be missed decides nothing. Which users need more?"
        )
    return "every limit is a number with a side and a reason."


Verdict = Callable[[float | None, float | None, float | None], str]


def _swapped(value: float | None, at_least: float | None, at_most: float | None) -> str:
    return decisions.verdict(value, at_most, at_least)


def _strict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    return (
        "missed" if value in (at_least, at_most) and value is not None else decisions.verdict(value, at_least, at_most)
    )


def _one_sided(value: float | None, at_least: float | None, at_most: float | None) -> str:
    return decisions.verdict(value, at_least, None)


def _other_sided(value: float | None, at_least: float | None, at_most: float | None) -> str:
    return decisions.verdict(value, None, at_most)


@graded(LAB, "2. met, missed or not measured")
def verdict(answer: Answer) -> str:
    """`verdict(value, at_least, at_most) -> "met" | "missed" | "not measured"`."""
    cases: tuple[tuple[float | None, float | None, float | None], ...] = (
        (12.0, 10.0, None),
        (8.0, 10.0, None),
        (300.0, None, 500.0),
        (700.0, None, 500.0),
        (0.0, 10.0, None),
        (0.0, None, 10.0),
        (10.0, 10.0, None),
        (500.0, None, 500.0),
        (5.0, 1.0, 9.0),
        (10.0, 1.0, 9.0),
        (None, 10.0, None),
        (None, None, 500.0),
    )
    mistakes = (
        Mistake("at_least and at_most are exchanged", _swapped),
        Mistake("at_most is a limit too", _one_sided),
        Mistake("at_least is a limit too", _other_sided),
        Mistake("a limit that is just reached is met", _strict),
        Mistake("a value of 0 was measured: ask `is None`", lambda v, *ends: decisions.verdict(v or None, *ends)),
    )
    label = ["value={}, at_least={}, at_most={}".format(*case) for case in cases]
    got = [call(answer, *case, case=words) for case, words in zip(cases, label, strict=True)]

    def outcome(function: Answer) -> list[object]:
        return [function(*case) for case in cases]

    # Three words are few: a mistake is recognised by all its answers together.
    comparison, wanted = compared(Comparison(outcome, decisions.verdict, mistakes)), outcome(decisions.verdict)
    if got == wanted:
        return "and a gap stays a gap."
    if any(isinstance(word, bool) for word in got):
        raise NotYet("there are three answers, and True or False are two: return the words")
    if hint := comparison.hint(got):
        raise NotYet(hint)
    mine, right, where = next(row for row in zip(got, wanted, label, strict=True) if row[0] != row[1])
    if right == "not measured":
        raise NotYet(f"{mine!r} for a value of None: what was not measured is neither met nor missed")
    raise NotYet(f"{mine!r} for {where}, and it is {right!r}")


@graded(LAB, "3. trade-offs with measured ratios")
def trade_offs(answer: Answer) -> str:
    """`trade_offs() -> tuple of two TradeOffs or more`, gains and costs on record."""
    got = call(answer)
    if not isinstance(got, tuple | list) or len(got) < 2:
        raise NotYet("return a tuple of two trade-offs or more")
    results = read_results(lab_record.results_folder())
    for each in got:
        _kind(each, TradeOff, "each of them")
        if not isinstance(each.choice, str) or not each.choice.strip():
            raise NotYet("a trade-off has no `choice`: what would you change?")
        for side, ratio in (("gain", each.gain), ("cost", each.cost)):
            _kind(ratio, Ratio, f"the {side} of {each.choice!r}")
            before, after = (_on_record(results, ratio.lab, name) for name in (ratio.before, ratio.after))
            if ratio.before == ratio.after:
                raise NotYet(f"the {side} of {each.choice!r} compares a measurement with itself")
            if before.unit != after.unit:
                raise NotYet(
                    f"the {side} of {each.choice!r} divides {after.unit} by {before.unit}: a ratio needs one unit"
                )
            if before.value == 0:
                raise NotYet(f"the {side} of {each.choice!r} divides by a measurement of 0")
        if each.gain == each.cost:
            raise NotYet(f"{each.choice!r} gains what it costs: there is always a price, so find and measure it")
        _reasoned(each.because, repr(each.choice))
    if len({each.choice for each in got}) < len(got):
        raise NotYet("two trade-offs have the same `choice`")
    return "each with a gain and a cost, and both measured."


@graded(LAB, "4. a prediction reviewed")
def look_back(answer: Answer) -> str:
    """`look_back() -> LookBack` on a prediction with a measurement."""
    got = call(answer)
    _kind(got, LookBack, "the answer")
    assert isinstance(got, LookBack)
    results = read_results(lab_record.results_folder())
    known = [(lab, name) for lab, found in results.items() for name in found.measured_predictions()]
    if not known:
        raise NotYet("no prediction is on record together with its measurement: make one in section 2")
    if (got.lab, got.prediction) not in known:
        label = "; ".join(f"{lab}: {name}" for lab, name in known[-4:])
        raise NotYet(f"lab {got.lab} has no {got.prediction!r} both predicted and measured; there are {label}")
    _reasoned(got.because, "`because`")
    return "predicted, measured, and understood."


ITEMS = (target, verdict, trade_offs, look_back)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
