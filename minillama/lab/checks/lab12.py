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
from minillama.lab.grading.course_seed import hidden_cases, real
from minillama.lab.grading.decisions import Limit, LookBack, Ratio, Target, TradeOff
from minillama.lab.grading.lab_results import Quantity, Results, measured, read_results, results_so_far
from minillama.lab.language import message, translate

LAB = "12"
MIN_WORDS = 8  # of a reason


def _on_record(results: Results, lab: str, name: str, coming: Iterable[str] = ()) -> Quantity:
    """The measurement; raises NotYet with similar names if there is none.

    coming: names that the lab will measure."""
    if (found := measured(results, lab, name)) is not None:
        return found
    if lab not in results and not coming:
        labs = ", ".join(results) or translate("no lab")
        raise NotYet(translate("there is nothing on record of lab {lab!r}; on record: {labs}", lab=lab, labs=labs))
    if lab in results and results[lab].problems:
        problem = results[lab].problems[0]
        raise NotYet(
            translate("lab {lab} has no measurement {name!r} on record: {problem}", lab=lab, name=name, problem=problem)
        )
    names = [*coming, *(results[lab].measurements if lab in results else ())]
    near = difflib.get_close_matches(name, names, 3, 0.3) or names[:5]
    raise NotYet(
        translate(
            "lab {lab} has no measurement {name!r} on record; did you mean {names}?",
            lab=lab, name=name, names=translate(" or ").join(map(repr, near)),
        )
    )  # fmt: skip


def _reasoned(text: object, what: str) -> None:
    if not isinstance(text, str) or decisions.word_count(text) < MIN_WORDS:
        raise NotYet(translate("{what}: say why in a sentence, of {count} words or more", what=what, count=MIN_WORDS))


def _kind(value: object, wanted: type, what: str) -> None:
    if not isinstance(value, wanted):
        kind = type(value).__name__
        raise NotYet(
            translate("{what} should be a {wanted}, and is a {kind}", what=what, wanted=wanted.__name__, kind=kind)
        )


@graded(LAB, "1. a target with numbers")
def target(answer: Answer) -> str:
    """`target() -> Target` with two limits or more, each with a reason."""
    got = call(answer)
    _kind(got, Target, translate("the answer"))
    assert isinstance(got, Target)
    if not isinstance(got.name, str) or not got.name.strip():
        names = ", ".join(repr(translate(name)) for name in decisions.TARGETS)
        raise NotYet(translate("the target has no name; for example {names}", names=names))
    if not isinstance(got.limits, tuple | list) or len(got.limits) < 2:
        raise NotYet("a target needs two limits or more: with a single limit there is nothing to trade off")
    results = results_so_far()
    for limit in got.limits:
        _kind(limit, Limit, translate("each limit"))
        ends = [end for end in (limit.at_least, limit.at_most) if end is not None]
        if len(ends) != 1:
            raise NotYet(
                translate(
                    "{name!r}: give either at_least or at_most, a number without a side says nothing",
                    name=limit.measurement,
                )
            )
        if not isinstance(ends[0], int | float) or not math.isfinite(ends[0]) or ends[0] <= 0:
            raise NotYet(
                translate(
                    "{name!r}: the limit is {end!r}; it should be a positive number",
                    name=limit.measurement,
                    end=ends[0],
                )
            )
        if limit.lab != LAB or limit.measurement not in decisions.OWN_RUN:
            _on_record(results, limit.lab, limit.measurement, decisions.OWN_RUN if limit.lab == LAB else ())
        because = translate("`because` of the limit on {name!r}", name=limit.measurement)
        _reasoned(limit.because, because)
        if not any(character.isdigit() for character in limit.because):
            raise NotYet(
                translate(
                    "{because}: say which number of the users or of their machine the limit comes from, in digits",
                    because=because,
                )
            )
    if len({(limit.lab, limit.measurement) for limit in got.limits}) < 2:
        raise NotYet("both limits are on the same measurement: what else matters to this target?")
    if decisions.is_too_easy(got, results):
        raise NotYet(
            translate(
                "the measurements on record are {times:g} times better than every limit, or more: a target that is "
                "chosen after them and cannot be missed decides nothing. Which users need more?",
                times=decisions.EASY,
            )
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
        *((value, low, None) for value, low in hidden_cases(1202, real(1.0, 100.0), real(1.0, 100.0))),
        *((value, None, high) for value, high in hidden_cases(1203, real(1.0, 100.0), real(1.0, 100.0))),
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
        raise NotYet(
            translate("{mine!r} for a value of None: what was not measured is neither met nor missed", mine=mine)
        )
    raise NotYet(translate("{mine!r} for {case}, and it is {right!r}", mine=mine, case=where, right=right))


@graded(LAB, "3. trade-offs with measured ratios")
def trade_offs(answer: Answer) -> str:
    """`trade_offs() -> tuple of two TradeOffs or more`, gains and costs on record."""
    got = call(answer)
    if not isinstance(got, tuple | list) or len(got) < 2:
        raise NotYet("return a tuple of two trade-offs or more")
    results = read_results(lab_record.results_folder())
    for each in got:
        _kind(each, TradeOff, translate("each of them"))
        if not isinstance(each.choice, str) or not each.choice.strip():
            raise NotYet("a trade-off has no `choice`: what would you change?")
        for words, ratio in (
            (message("the gain of {choice!r}"), each.gain), (message("the cost of {choice!r}"), each.cost)
        ):  # fmt: skip
            side = translate(words, choice=each.choice)
            _kind(ratio, Ratio, side)
            before, after = (_on_record(results, ratio.lab, name) for name in (ratio.before, ratio.after))
            if ratio.before == ratio.after:
                raise NotYet(translate("{side} compares a measurement with itself", side=side))
            if before.unit != after.unit:
                raise NotYet(
                    translate(
                        "{side} divides {after} by {before}: a ratio needs one unit",
                        side=side, after=after.unit, before=before.unit,
                    )
                )  # fmt: skip
            if before.value == 0:
                raise NotYet(translate("{side} divides by a measurement of 0", side=side))
        if each.gain == each.cost:
            raise NotYet(
                translate(
                    "{choice!r} gains what it costs: there is always a price, so find and measure it",
                    choice=each.choice,
                )
            )
        _reasoned(each.because, repr(each.choice))
    if len({each.choice for each in got}) < len(got):
        raise NotYet("two trade-offs have the same `choice`")
    return "each with a gain and a cost, and both measured."


@graded(LAB, "4. a prediction reviewed")
def look_back(answer: Answer) -> str:
    """`look_back() -> LookBack` on a prediction with a measurement."""
    got = call(answer)
    _kind(got, LookBack, translate("the answer"))
    assert isinstance(got, LookBack)
    results = read_results(lab_record.results_folder())
    known = [(lab, name) for lab, found in results.items() for name in found.measured_predictions()]
    if not known:
        raise NotYet("no prediction is on record together with its measurement: make one in section 2")
    if (got.lab, got.prediction) not in known:
        label = "; ".join(f"{lab}: {name}" for lab, name in known[-4:])
        raise NotYet(
            translate(
                "lab {lab} has no {name!r} both predicted and measured; there are {label}",
                lab=got.lab, name=got.prediction, label=label,
            )
        )  # fmt: skip
    _reasoned(got.because, "`because`")
    return "predicted, measured, and understood."


ITEMS = (target, verdict, trade_offs, look_back)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
