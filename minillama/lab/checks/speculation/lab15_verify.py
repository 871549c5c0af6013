"""Graded item of lab 15: keep a guess or replace it; the distribution stays."""

from collections.abc import Callable

import numpy as np

from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, as_array, call, compared, graded
from minillama.lab.grading.course_seed import hidden_seed
from minillama.lab.language import message, translate
from minillama.lab.speculation.rejection_sampling import Distribution, Verify, output_distribution

LAB = "15"
TOLERANCE = 1e-9
Verified = tuple[float, Distribution]


def scaled(weights: Distribution, instead: Distribution) -> Distribution:
    """Weights that add up to 1; `instead` where there is nothing to scale."""
    total = weights.sum()
    return weights / total if total > 0 else instead


def _chance(p: Distribution, q: Distribution, guess: int) -> float:
    return min(1.0, float(p[guess] / q[guess]))


def _rest(p: Distribution, q: Distribution) -> Distribution:
    return scaled(np.maximum(p - q, 0), p)


def right_verify(p: Distribution, q: Distribution, guess: int) -> Verified:
    """Keep a guess with min(1, p/q), otherwise draw from max(p - q, 0)."""
    return _chance(p, q, guess), _rest(p, q)


def _without(p: Distribution, guess: int) -> Distribution:
    left = p.copy()
    left[guess] = 0
    return scaled(left, p)


VERIFY_MISTAKES = (
    Mistake("the token of the second draw is too often a likely guess: draw from what p has more than q, not from p",
            lambda p, q, g: (_chance(p, q, g), p)),
    Mistake("keep a guess with probability p over q, not q over p",
            lambda p, q, g: (min(1.0, float(q[g] / p[g])) if p[g] else 1.0, _rest(p, q))),
    Mistake("the guess came from q, so it is there too often where q is large: keep it with p / q, not with p",
            lambda p, q, g: (float(p[g]), _rest(p, q))),
    Mistake("forbidding the guess is not enough: other tokens that q prefers were guessed often enough, too",
            lambda p, q, g: (_chance(p, q, g), _without(p, g))),
    Mistake("take only the places where p is larger than q: the others were guessed often enough",
            lambda p, q, g: (_chance(p, q, g), scaled(np.abs(p - q), p))),
    Mistake("p minus q, not q minus p: the replacement makes up for tokens that q guesses too rarely",
            lambda p, q, g: (_chance(p, q, g), scaled(np.maximum(q - p, 0), p))),
    Mistake("this is p at the end, but nothing is won: no guess is ever kept", lambda p, q, g: (0.0, p)),
    Mistake("a guess is kept whatever the model says: the text is the draft model's", lambda p, q, g: (1.0, p)),
    Mistake("this keeps only the likeliest token: right for temperature 0, and not for draws",
            lambda p, q, g: (float(g == p.argmax()), _rest(p, q))),
)  # fmt: skip
_SHAPES = (
    message("likely and unlikely guesses"), message("a token that q never guesses and one that p never writes"),
    message("a draft of one token only"), message("equal distributions"),
)  # fmt: skip


def distributions(seed: int) -> list[tuple[str, Distribution, Distribution]]:
    """Pairs of p and q on small vocabularies, with names."""
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(6)), random.dirichlet(np.ones(6))
    some_p, some_q = p.copy(), q.copy()
    some_p[2], some_q[4] = 0, 0
    one = np.zeros(6)
    one[int(p.argmax())] = 1.0
    pairs = ((p, q), (some_p / some_p.sum(), some_q / some_q.sum()), (p, one), (p, p.copy()))
    return [(name, *pair) for name, pair in zip(_SHAPES, pairs, strict=True)]


@graded(LAB, "4. the distribution stays the same")
def verify(answer: Answer) -> str:
    """`verify(p, q, guess) -> (chance to keep the guess, distribution of its replacement)`, by enumeration."""
    for name, p, q in distributions(hidden_seed(1504)):
        comparison = compared(Comparison(_outcome(p, q), right_verify, VERIFY_MISTAKES, TOLERANCE))
        got = comparison.outcome(_read(answer, name))
        if comparison.accepts(got):
            continue
        raise NotYet(comparison.hint(got) or _difference(got, p, q, name))
    return "all tokens have the probabilities of p, and no rule keeps more guesses."


def _outcome(p: Distribution, q: Distribution) -> Callable[[Answer], np.ndarray]:
    """The distribution that comes out, and after it the share of guesses that are kept."""

    def outcome(function: Verify) -> np.ndarray:
        out, kept = output_distribution(function, p, q)
        return np.append(out, kept)

    return outcome


def _read(answer: Answer, name: str) -> Verify:
    """The learner's function, with one sentence for a result that is none."""
    case = translate(name)

    def checked(p: Distribution, q: Distribution, guess: int) -> Verified:
        got = call(answer, p, q, guess, case=name)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise NotYet("return two values: the chance to keep the guess, and a distribution")
        keep, rest = as_array(got[0]), as_array(got[1])
        if keep.shape != () or rest.shape != p.shape:
            raise NotYet(
                translate("return a number and a distribution of {count} tokens, for {case}", count=len(p), case=case)
            )
        if not np.isfinite(keep) or not np.isfinite(rest).all():
            raise NotYet(
                translate("the result holds nan or infinity for {case}: is there a division by zero?", case=case)
            )
        if not -TOLERANCE <= keep <= 1 + TOLERANCE:
            raise NotYet(
                translate(
                    "the chance to keep a guess is {keep:.4g} for {case}; a chance is between 0 and 1",
                    keep=float(keep), case=case,
                )
            )  # fmt: skip
        if keep < 1 - TOLERANCE and (rest.min() < -TOLERANCE or abs(rest.sum() - 1) > TOLERANCE):
            raise NotYet(
                translate(
                    "the replacement's probabilities add up to {total:.4g}, the smallest is {least:.4g} for {case}; "
                    "scale what is left to a sum of 1",
                    total=rest.sum(), least=rest.min(), case=case,
                )
            )  # fmt: skip
        return float(keep), rest

    return checked


def _difference(got: np.ndarray, p: Distribution, q: Distribution, name: str) -> str:
    out, kept = got[:-1], got[-1]
    if np.allclose(out, p, atol=TOLERANCE):
        most = np.minimum(p, q).sum()
        return translate(
            "the distribution is right, but {kept:.3f} of the guesses are kept and {most:.3f} could be, for {case}",
            kept=kept, most=most, case=translate(name),
        )  # fmt: skip
    place = int(np.argmax(np.abs(out - p)))
    return translate(
        "token {place} comes out with probability {got:.4f}, and p has {want:.4f}, for {case}",
        place=place, got=out[place], want=p[place], case=translate(name),
    )  # fmt: skip
