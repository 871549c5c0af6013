"""Graded items of lab 05: decode with a cache, compile once, bytes, intensity, slopes."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from minillama.lab.checks.items.lab05_layer_bytes import layer_bytes
from minillama.lab.checks.items.lab05_step import step
from minillama.lab.checks.items.toy_model import ToyModel, decode_naively, decode_with, toy_logits
from minillama.lab.grading.check import (
    Answer,
    Comparison,
    Mistake,
    NotYet,
    Score,
    as_array,
    call,
    compared,
    expect_equal,
    graded,
)
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, real, whole
from minillama.lab.language import message, translate

LAB = "05"


@graded(LAB, "1. the same text with a cache")
def generate(answer: Answer) -> str:
    """`generate(model, prompt, n) -> n greedy tokens`, each token run once."""
    for prompt, n in (([5, 17, 3, 88], 6), ([7], 12), (list(range(40)), 20), ([1, 2, 3], 1)):
        toy, label = ToyModel(), translate("a prompt of {size} and n={n}", size=len(prompt), n=n)
        got = call(partial(answer, toy), list(prompt), n, case=label)
        numbers = as_array(list(got) if isinstance(got, tuple) else got)
        if numbers.ndim != 1:
            text = translate("return a list of token ids; got something of shape {shape}", shape=numbers.shape)
            raise NotYet(text)
        ids, want = [int(token) for token in numbers], decode_naively(prompt, n)
        decode = partial(_decode, prompt, n)
        comparison = compared(Comparison(decode, decode_naively, DECODE_MISTAKES))
        if not toy.calls:
            raise NotYet("model was never called")
        if ids != want:
            raise NotYet(_why_other(ids, want, prompt, n, label, comparison))
        least = len(prompt) + n - 1
        if toy.tokens > least + 1:
            text = translate(
                "the right tokens, but {count} were run for {label} where {least} are enough: "
                "run the prompt once, then only the newest token, with the returned cache",
                count=toy.tokens, label=label, least=least,
            )  # fmt: skip
            raise NotYet(text)
        if toy.tokens > least:
            text = translate(
                "one token too many was run for {label}: no one needs the logits after the last token", label=label
            )
            raise NotYet(text)
        if toy.calls > n:
            text = translate(
                "{count} passes where {n} are enough ({label}): run the whole prompt in one pass, as one matrix",
                count=toy.calls, n=n, label=label,
            )  # fmt: skip
            raise NotYet(text)
    return "the same tokens; the prompt is run once, then one token a pass."


SAME_TOKEN = message("always the same token: the chosen token must be run before the next can be chosen")
DECODE_MISTAKES = (
    Mistake(
        "the cache gets the token *before* the newest: run the one that was just chosen",
        lambda prompt, n: decode_with(prompt, n, lambda token, before: [before]),
    ),
    Mistake(
        "the last token is run again before the new one: what is in the cache must not be run twice",
        lambda prompt, n: decode_with(prompt, n, lambda token, before: [before, token]),
    ),
    Mistake(SAME_TOKEN, lambda prompt, n: decode_with(prompt, n, lambda token, before: [])),
)


def _why_other(
    ids: list[int], want: list[int], prompt: Sequence[int], n: int, label: str, comparison: Comparison
) -> str:
    """Hint for wrong tokens."""
    if ids == [*prompt, *want]:
        return message("return the new tokens alone, without the prompt")
    if len(ids) != n:
        return translate(
            "{count} tokens where n={n} were asked for; the first one comes from the prompt's own logits",
            count=len(ids),
            n=n,
        )
    if hint := comparison.hint(ids):
        return hint
    if len(set(ids)) == 1 < len(set(want)):
        return SAME_TOKEN
    if ids == [int(np.argmax(toy_logits((token,)))) for token in [prompt[-1], *ids[:-1]]] or ids[1:] == [
        int(np.argmax(toy_logits((token,)))) for token in ids[:-1]
    ]:
        return message(
            "each pass starts from an empty cache and sees one token: give the returned cache to the next pass"
        )
    if ids[0] == want[0]:
        return translate(
            "the first token is right, then it goes elsewhere ({label}): what did the cache hold for the second?",
            label=label,
        )
    return translate("other tokens than recomputing gives ({label}): greedy means np.argmax of the logits", label=label)


def _decode(prompt: Sequence[int], n: int, function: Answer) -> object:
    return function(prompt, n)


def _intensity(weights: float, weight_bytes: float, cache_bytes: float, tokens: int) -> float:
    return 2 * weights * tokens / (weight_bytes + cache_bytes)


@graded(LAB, "4. arithmetic intensity")
def intensity(answer: Answer) -> str:
    """`intensity(weights, weight_bytes, cache_bytes, tokens) -> operations per byte` of one pass."""
    mistakes = (
        Mistake("a weight is multiplied *and* added: two operations", lambda w, b, c, t: w * t / (b + c)),
        Mistake(
            "a pass reads its weights once, however many tokens it has", lambda w, b, c, t: 2 * w * t / (b * t + c)
        ),
        Mistake("every token of the pass is multiplied with every weight", lambda w, b, c, t: 2 * w / (b + c)),
        Mistake("the cache is read too", lambda w, b, c, t: 2 * w * t / b),
        Mistake("operations per byte, not bytes per operation", lambda w, b, c, t: (b + c) / (2 * w * t)),
        Mistake("both are read: weights *plus* cache", lambda w, b, c, t: 2 * w * t / b + c),
    )
    cases = ((1e9, 2e9, 1e8, 1), (1e9, 2e9, 1e8, 512), (7e9, 3.9e9, 2.1e9, 1), (1769472.0, 2444288.0, 98304.0, 64))
    draws = (real(1e6, 1e11), real(1e6, 1e11), real(1e5, 1e10), whole(1, 512))
    for case in (*cases, *hidden_cases(504, *draws)):
        expect_equal(answer, case, _intensity, mistakes, tolerance=1e-6, case=f"tokens={case[-1]}")
    return "one or two operations a byte for a token, hundreds for a prompt."


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope and offset of the line through (x, y)."""
    return np.polyfit(x, y, 1)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(_fit(np.log(x), np.log(y))[0])


@graded(LAB, "2. the slope tells the law")
def slope(answer: Answer) -> str:
    """`slope(x, y) -> k` of the power law y = c x^k that fits best."""
    mistakes = (
        Mistake("that is the slope of the plain numbers: take the logarithm of both first", lambda x, y: _fit(x, y)[0]),
        Mistake("the logarithm of x is missing", lambda x, y: _fit(x, np.log(y))[0]),
        Mistake("the logarithm of y is missing", lambda x, y: _fit(np.log(x), y)[0]),
        Mistake("the axes are exchanged: y rises with x", lambda x, y: _slope(y, x)),
        Mistake("np.polyfit gives [slope, offset]: take the first", lambda x, y: _fit(np.log(x), np.log(y))[1]),
        Mistake("np.polyfit gives [slope, offset]: take the first", lambda x, y: _fit(np.log(x), np.log(y))),
        Mistake(
            "yours uses the two ends only, and noise at one end spoils it: fit all points",
            lambda x, y: np.log(y[-1] / y[0]) / np.log(x[-1] / x[0]),
        ),
    )
    x = np.array([64.0, 128.0, 256.0, 512.0, 1024.0])
    noise = np.array([1.0, 1.2, 0.9, 1.1, 1.3])
    drawn = [factor * x**power for factor, power in hidden_cases(502, real(1e-6, 1.0), real(0.2, 2.5))]
    hidden = [y * np.exp(0.1 * hidden_random(5020 + place).normal(size=len(x))) for place, y in enumerate(drawn)]
    for y in (5e-6 * x**2 * noise, 3e-3 * x, 0.7 * noise, x**1.5, *hidden):
        label = translate("y from {first:.3g} to {last:.3g}", first=y[0], last=y[-1])
        expect_equal(answer, (x, y), _slope, mistakes, tolerance=1e-6, case=label)
    return "one number separates constant, linear and quadratic."


ITEMS = (generate, slope, step, intensity, layer_bytes)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
