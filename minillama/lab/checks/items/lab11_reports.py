"""Graded items of lab 11: names of eight flaws, reasons of unfair comparisons."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, call, compared, graded
from minillama.lab.language import message, translate

LAB = "11"

# ---- the eight flaws ----

RIGHT = {
    "A": message("compilation inside the timed region"),
    "B": message("no block_until_ready"),
    "C": message("cold cache against warm cache"),
    "D": message("best of n against a single run"),
    "E": message("mean with outliers"),
    "F": message("different prompt lengths"),
    "G": message("model quality ignored"),
    "H": message("different numbers of threads"),
}
DECOYS = (message("input created inside the timed region"), message("timer resolution too coarse"))
FLAWS = tuple(sorted((*RIGHT.values(), *DECOYS)))  # by the alphabet, so that the order says nothing
LOOK_AT = {
    "A": message("list everything between the two readings of the clock. Which part of it runs only once?"),
    "B": message("after which line does the result exist? Compare the time with the operations of the block"),
    "C": message("swap the two calls of `submit` in your mind. Would the number turn round?"),
    "D": message("count how often each side runs, and which of its numbers is kept"),
    "E": message("sort the 30 times in your mind, and look at the two longest. How much do they add to the number?"),
    "F": message("write the arguments of both calls below each other. What differs except the model?"),
    "G": message("what else would a user of the small file notice, except its size?"),
    "H": message("write down what runs above the fraction line, and what runs below it, with all arguments"),
}


def flaw_list() -> str:
    """The names of the flaws, one a line, with their meaning in the learner's language."""
    meanings = {name: translate(name) for name in FLAWS}
    return "\n".join(
        name if meaning == name else translate("{name} ({meaning})", name=name, meaning=meaning)
        for name, meaning in meanings.items()
    )


def _is_right(answer: Answer, letter: str) -> bool:
    found = answer()
    return isinstance(found, Mapping) and found.get(letter) == RIGHT[letter]


def _without(letter: str) -> dict[str, str]:
    return {**RIGHT, letter: DECOYS[0]}


@graded(LAB, "1. eight flaws")
def flaws(answer: Answer) -> str:
    """`flaws() -> {letter: name of the flaw}` for the eight reports."""
    given = call(answer)
    if not isinstance(given, Mapping):
        raise NotYet('return a dictionary such as {"A": "...", "B": "..."}')
    if missing := [letter for letter in RIGHT if letter not in given]:
        raise NotYet(
            translate(
                "no name for {letters}: eight letters, each with a name out of check.FLAWS", letters=", ".join(missing)
            )
        )
    if strange := [letter for letter in RIGHT if given[letter] not in FLAWS]:
        shown = str(given[strange[0]])[:60]
        raise NotYet(
            translate(
                "{letter}: {name!r} is no name out of check.FLAWS; copy it letter by letter",
                letter=strange[0], name=shown,
            )
        )  # fmt: skip
    for letter in RIGHT:
        hint = translate("{letter}: {hint}", letter=letter, hint=translate(LOOK_AT[letter]))
        mistakes = (Mistake(hint, partial(_without, letter)),)
        comparison = compared(Comparison(partial(_is_right, letter=letter), lambda: RIGHT, mistakes))
        if not comparison.accepts(got := _is_right(lambda: given, letter)):
            raise NotYet(comparison.hint(got) or letter)
    return "eight of eight. None of them is rare."


# ---- is a comparison fair? ----

SETTINGS = ("model", "type", "prompt_tokens", "depth", "threads", "cache", "statistic")
FEWEST = 5  # repetitions
Report = Mapping[str, object]
_GOOD: dict[str, object] = {
    "model": "storyteller", "type": "Q8_0", "prompt_tokens": 512, "depth": 0, "threads": 2, "cache": "cold",
    "statistic": "median", "repetitions": 9, "perplexity": 216.4, "tokens_per_second": 310.0,
}  # fmt: skip


def _but(base: Report = _GOOD, **changes: object) -> dict[str, object]:
    """A report with changes; a value of None leaves the setting out."""
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


CASES: tuple[tuple[Report, Report, str], ...] = (
    (_but(), _but(threads=4, repetitions=7, tokens_per_second=590.0), "threads"),
    (_but(), _but(type="Q2_K", perplexity=250.7), "type"),
    (_but(), _but(type="Q2_K", perplexity=None), "type"),
    (_but(), _but(threads=4, depth=1024, cache="warm"), "threads"),
    (_but(), _but(threads=4, repetitions=5, perplexity=None), "threads"),
    (_but(repetitions=1), _but(threads=4, statistic="best"), "threads"),
    (_but(), _but(tokens_per_second=480.0), "threads"),
    (_but(depth=None), _but(cache="warm"), "cache"),
    (_but(depth=None), _but(depth=None, cache="warm"), "cache"),
    (_but(prompt_tokens=16), _but(type="F16", perplexity=None, repetitions=3), "type"),
    (_but(), _but(cache=None), "cache"),
)


def _unfair(
    a: Report, b: Report, studied: str, *, both: bool = False, skips_missing: bool = False,
    missing_is_equal: bool = False, first: bool = False, quality: str = "type", studies: bool = True,
    least: int = FEWEST, equal_count: bool = False, results: bool = False, one_side: bool = False,
) -> list[str]:  # fmt: skip
    """The right reasons; each keyword makes one mistake."""
    found = set()
    for name in (*SETTINGS, "tokens_per_second") if results else SETTINGS:
        is_missing = (name not in a) or (name not in b)
        if missing_is_equal:
            is_missing = (name in a) != (name in b)
        is_equal = a.get(name) == b.get(name)
        if name == studied and not both:
            if studies and (is_equal or is_missing):
                found.add(name)
        elif is_missing:
            found |= set() if skips_missing else {name}
        elif not is_equal:
            found.add(name)
    sides = (a,) if one_side else (a, b)
    if any(int(str(each["repetitions"])) < least for each in sides) or (
        equal_count and a["repetitions"] != b["repetitions"]
    ):
        found.add("repetitions")
    if quality in (studied, "always") and not all("perplexity" in each for each in (a, b)):
        found.add("perplexity")
    return sorted(found)[:1] if first else sorted(found)


def _with(**mistake: object) -> Callable[[Report, Report, str], list[str]]:
    return partial(_unfair, **mistake)  # type: ignore[arg-type]


UNFAIR_MISTAKES = (
    Mistake("if the studied setting is equal or missing, nothing is compared: that is a reason, too",
            _with(studies=False)),
    Mistake("the studied setting *must* differ: it is no reason when it does", _with(both=True)),
    Mistake("a setting that neither report states is a reason, too: None == None proves nothing",
            _with(missing_is_equal=True)),
    Mistake("a setting that one report does not state is a reason: it may have been another value",
            _with(skips_missing=True)),
    Mistake("return *all* reasons, not only the first", _with(first=True)),
    Mistake("a comparison of types without the perplexity of both hides its cost", _with(quality="never")),
    Mistake("perplexity is needed where the *type* is studied; elsewhere the model stays the same",
            _with(quality="always")),
    Mistake("both reports need enough repetitions, not only the first", _with(one_side=True)),
    Mistake("fewer than 5 repetitions are too few", _with(least=0)),
    Mistake("5 repetitions are enough", _with(least=FEWEST + 1)),
    Mistake("the numbers of repetitions may differ; each must be large enough", _with(equal_count=True)),
    Mistake("tokens a second are the result, not a setting", _with(results=True)),
)  # fmt: skip


@graded(LAB, "4. is this comparison fair?")
def unfair(answer: Answer) -> str:
    """`unfair(a, b, studied) -> names of the settings that make the comparison unfair`."""
    for a, b, studied in CASES:

        def outcome(function: Answer, a: Report = a, b: Report = b, studied: str = studied) -> list[str]:
            return _names(function(dict(a), dict(b), studied))

        comparison = compared(Comparison(outcome, _unfair, UNFAIR_MISTAKES))
        case = translate("a comparison of {studied}", studied=studied)
        got = _names(call(answer, dict(a), dict(b), studied, case=case))
        if not comparison.accepts(got):
            raise NotYet(comparison.hint(got) or _told(a, b, studied, got))
    return translate("{count} comparisons, with every reason.", count=len(CASES))


def _names(value: object) -> list[str]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in value):
        raise NotYet("return a list of names of settings; an empty one means fair")
    return sorted(set(value))


def _told(a: Report, b: Report, studied: str, got: Sequence[str]) -> str:
    want = _unfair(a, b, studied)
    extra, missing = sorted(set(got) - set(want)), sorted(set(want) - set(got))
    parts = [translate("{names} should not be there", names=", ".join(extra))] * bool(extra)
    parts += [translate("{names} missing", names=", ".join(missing))] * bool(missing)
    differing = {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}
    return translate(
        "{studied} is studied, and the reports differ in {differing}: {parts}",
        studied=studied, differing=differing, parts=translate("; ").join(parts),
    )  # fmt: skip
