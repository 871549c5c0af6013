"""Graded items of lab 04: the sampler chain by hand."""

import numpy as np

from minillama.lab.grading.check import (
    Answer,
    Comparison,
    Mistake,
    NotYet,
    Score,
    call,
    compared,
    expect_equal,
    graded,
)
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import message, translate

LAB = "04"


def _hidden_logits() -> list[np.ndarray]:
    """Of 5, 12 and 64 tokens."""
    random = hidden_random(404)
    return [random.normal(0.0, 3.0, size) for size in (5, 12, 64)]


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _temperature(logits: np.ndarray, temp: float) -> np.ndarray:
    if temp <= 0:
        return (np.arange(logits.size) == np.argmax(logits)).astype(float)
    return _softmax(logits / temp)


def _scaled(logits: np.ndarray, factor: float) -> np.ndarray:
    return _softmax(logits * factor)


@graded(LAB, "1. temperature")
def temperature(answer: Answer) -> str:
    """`temperature(logits, temp) -> probabilities`."""
    mistakes = (
        Mistake("divide by the temperature: a high one flattens, and your function sharpens", _scaled),
        Mistake("divide the logits, not the probabilities: softmax comes after", lambda x, t: _softmax(x) / t),
        Mistake("these are logits still; softmax makes probabilities of them", lambda x, t: x / t),
        Mistake("exp is there, but the sum is not 1: divide by it", lambda x, t: np.exp(x / t)),
        Mistake(
            "did the temperature reach the logits at all? This is softmax at temperature 1", lambda x, t: _softmax(x)
        ),
    )
    for logits in (hidden := _hidden_logits()):
        for temp in (0.3, 2.0):
            expect_equal(answer, (logits, temp), _temperature, mistakes, tolerance=1e-5, case=f"temp={temp}")
    high = np.array([1000.0, 999.0, 0.0])
    got = np.asarray(call(answer, high, 0.8, case=message("logits near 1000")), dtype=np.float64)
    if not np.all(np.isfinite(got)):
        raise NotYet("exp(1000) overflows: subtract the largest logit first, softmax does not notice")
    expect_equal(answer, (high, 0.8), _temperature, mistakes, tolerance=1e-5, case=message("logits near 1000"))
    for temp in (0.0, -1.0):
        greedy = (
            Mistake(
                "temperature 0 means greedy: all of the probability on the largest logit", lambda x, t: _softmax(x)
            ),
            Mistake(
                "every temperature up to 0 is greedy: compare with <= 0, not with == 0",
                lambda x, t: _temperature(x, t) if t == 0 else _softmax(x / t),
            ),
            Mistake("which logit is the largest? All of the probability goes there", lambda x, t: _softmax(x / t)),
        )
        expect_equal(
            answer, (hidden[1], temp), _temperature, greedy, case=translate("temp={temp:g}, which is greedy", temp=temp)
        )
    return "flat, sharp, greedy, and no overflow."


def _top_p(probs: np.ndarray, p: float) -> np.ndarray:
    if p >= 1:
        return np.ones(probs.size, bool)
    order = np.argsort(-probs, kind="stable")
    total = np.cumsum(probs[order])
    count = min(int(np.sum(total < p)) + 1, probs.size)
    keep = np.zeros(probs.size, bool)
    keep[order[:count]] = True
    return keep


def _kept(answer: Answer, probs: np.ndarray, p: float, label: str) -> list[float]:
    """Probabilities of the kept tokens, largest first, because equal tokens are interchangeable."""
    mask = np.asarray(call(answer, probs, p, case=label))
    if mask.shape != probs.shape or mask.dtype != bool:
        raise NotYet(
            translate(
                "return an array of {size} booleans, one for each token; got {dtype} of shape {shape}",
                size=probs.size,
                dtype=mask.dtype,
                shape=mask.shape,
            )
        )
    return sorted(probs[mask].tolist(), reverse=True)


def _examine_kept(
    answer: Answer, right: Answer, cases: tuple[tuple[np.ndarray, float, str], ...], mistakes: tuple[Mistake, ...]
) -> None:
    for probs, p, name in cases:
        label = translate(name)

        def outcome(function: Answer, probs: np.ndarray = probs, p: float = p) -> list[float]:
            return sorted(probs[function(probs, p)].tolist(), reverse=True)

        comparison = compared(Comparison(outcome, right, mistakes))
        got, want = _kept(answer, probs, p, label), outcome(right)
        if got == want:
            continue
        if p >= 1 and len(got) < len(want):
            raise NotYet(
                translate("p=1 switches the filter off: keep everything, whatever the sum is ({label})", label=label)
            )
        if hint := comparison.hint(got):
            raise NotYet(translate("{hint} ({label})", hint=translate(hint), label=label))
        raise NotYet(
            translate(
                "{label}: kept {count} tokens with {total:.3f} of the probability, should be {wanted}",
                label=label,
                count=len(got),
                total=sum(got),
                wanted=len(want),
            )
        )


def _prefix(probs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mask of the tokens with `inside`, which is in order of decreasing probability."""
    keep = np.zeros(probs.size, bool)
    keep[np.argsort(-probs, kind="stable")[inside]] = True
    return keep


def _running(probs: np.ndarray) -> np.ndarray:
    return np.cumsum(np.sort(probs)[::-1])


@graded(LAB, "2. top-p and its edges")
def top_p(answer: Answer) -> str:
    """`top_p(probs, p) -> mask of the kept tokens`."""
    steps = np.array([0.125, 0.5, 0.125, 0.25])  # sums without rounding
    level = np.full(8, 0.125)
    usual = _softmax(_hidden_logits()[2])
    short = usual * (1 - 1e-6)  # the sum stays below 1, as in float32
    cases = (
        (np.array([0.1, 0.6, 0.05, 0.25]), 0.7, message("a usual case, not sorted")),
        (usual, 0.9, message("64 tokens, p=0.9")),
        (steps, 0.75, message("p reached exactly")),
        (np.array([0.1, 0.6, 0.3]), 0.0, "p=0"),
        (np.array([0.1, 0.6, 0.3]), 0.3, message("one token has more than p")),
        (level, 0.5, message("eight equal tokens, p=0.5")),
        (short, 1.0, message("p=1, and rounding leaves the sum at 0.999999")),
    )
    mistakes = (
        Mistake(
            "nothing is left: the likeliest token always stays",
            lambda q, p: _prefix(q, np.concatenate([[0.0], _running(q)[:-1]]) < p) if p < 1 else np.ones(q.size, bool),
        ),
        Mistake(
            "the token that carries the sum over p is kept too: look at the sum *before* each token",
            lambda q, p: _prefix(q, _running(q) < p),
        ),
        Mistake(
            "the token that carries the sum over p is kept too: look at the sum *before* each token",
            lambda q, p: _prefix(q, _running(q) <= p),
        ),
        Mistake(
            "a sum that reaches p exactly is enough: stop at >= p, not at > p",
            lambda q, p: _prefix(q, np.concatenate([[True], (_running(q) <= p)[:-1]])),
        ),
        Mistake(
            "sort by probability before you add up", lambda q, p: np.concatenate([[True], (np.cumsum(q) < p)[:-1]])
        ),
        Mistake("the likeliest come first: sort downwards", _ascending),
        Mistake("p is a share of the probability, not a threshold for each token", lambda q, p: q >= p),
        Mistake("of equal tokens only as many stay as are needed", _with_ties),
    )
    _examine_kept(answer, _top_p, cases, mistakes)
    return "the token that crosses p, p=0, p=1, ties: all right."


def _ascending(probs: np.ndarray, p: float) -> np.ndarray:
    order = np.argsort(probs, kind="stable")
    keep = np.zeros(probs.size, bool)
    keep[order[np.concatenate([[True], (np.cumsum(probs[order]) < p)[:-1]])]] = True
    return keep


def _with_ties(probs: np.ndarray, p: float) -> np.ndarray:
    return probs >= probs[_top_p(probs, p)].min()


@graded(LAB, "3. min-p")
def min_p(answer: Answer) -> str:
    """`min_p(probs, p) -> mask of the kept tokens`."""
    cases = (
        (np.array([0.05, 0.4, 0.15, 0.3, 0.1]), 0.29, message("a usual case")),
        (_softmax(_hidden_logits()[2]), 0.05, message("64 tokens, p=0.05")),
        (np.array([0.5, 0.25, 0.1875, 0.0625]), 0.375, message("a token exactly on the border")),
        (np.array([0.5, 0.3, 0.2]), 0.0, "p=0"),
        (np.array([0.2, 0.5, 0.3]), 1.0, "p=1"),
        (np.full(20, 0.05), 0.9, message("twenty equal tokens")),
    )
    mistakes = (
        Mistake("the border is a share of the *largest* probability: p * max", lambda q, p: q >= p),
        Mistake("the border is a share of the *largest* probability: p * max", lambda q, p: q > p),
        Mistake("a token exactly on the border stays: >=, not >", lambda q, p: q > p * q.max()),
        Mistake("a share of the largest probability, not of the average", lambda q, p: q >= p * q.mean()),
        Mistake("p * max is the border, not max - p", lambda q, p: q >= q.max() - p),
        Mistake("that is top-p; min-p compares each token with the largest", _top_p),
    )
    _examine_kept(answer, lambda q, p: q >= p * q.max(), cases, mistakes)
    return "relative to the likeliest token, border included."


def _penalise(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    out = logits.copy()
    for token in set(recent):
        out[token] = out[token] * penalty if out[token] <= 0 else out[token] / penalty
    return out


def _each_time(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    out = logits.copy()
    for token in recent:
        out[token] = out[token] * penalty if out[token] <= 0 else out[token] / penalty
    return out


def _to_all(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    return np.where(logits <= 0, logits * penalty, logits / penalty)


def _scaled_at(logits: np.ndarray, recent: list[int], factor: float) -> np.ndarray:
    out = logits.copy()
    out[sorted(set(recent))] *= factor
    return out


def _swapped(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    return _penalise(logits, recent, 1 / penalty)


def _subtracted(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    out = logits.copy()
    out[sorted(set(recent))] -= penalty
    return out


@graded(LAB, "4. repeat penalty")
def repeat_penalty(answer: Answer) -> str:
    """`repeat_penalty(logits, recent, penalty) -> logits`, a new array."""
    mistakes = (
        Mistake(
            "dividing a negative logit brings it nearer to zero, a reward: multiply where the logit is negative",
            lambda x, recent, r: _scaled_at(x, recent, 1 / r),
        ),
        Mistake(
            "multiplying a positive logit makes it likelier: divide where the logit is positive",
            lambda x, n, r: _scaled_at(x, n, r),
        ),
        Mistake("the wrong way round: that makes repetition likelier", _swapped),
        Mistake(
            "a token that occurred three times is penalised once (the frequency penalty is the one that counts)",
            _each_time,
        ),
        Mistake("only tokens that occurred recently are penalised", _to_all),
        Mistake("this penalty is a factor; subtracting is what the presence penalty does", _subtracted),
    )
    _, some, many = _hidden_logits()
    cases = (
        (np.array([2.0, -1.0, 0.5, 3.0]), [0, 1], 1.3),
        (some, [3, 3, 3, 7, 0], 1.5),
        (np.array([0.0, -2.0, 4.0]), [0, 1, 2, 2], 2.0),
        (many, [], 1.3),
        (some, [1, 2], 1.0),
    )
    for logits, recent, penalty in cases:
        label = f"recent={recent}, penalty={penalty}"
        expect_equal(answer, (logits, recent, penalty), _penalise, mistakes, tolerance=1e-6, case=label)
    return "positive divided, negative multiplied, each token once."


ITEMS = (temperature, top_p, min_p, repeat_penalty)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
