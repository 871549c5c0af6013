"""Speculative sampling by rejection, on small vocabularies: exact results, draws, and a test."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from minillama.array_types import Float, Int
from minillama.lab.error_text import one_line
from minillama.lab.experiments.quantised_storytellers import log_softmax
from minillama.lab.language import message, translate

Distribution = Float[np.ndarray, "V"]
Verify = Callable[[Distribution, Distribution, int], tuple[float, Distribution]]

SIGNIFICANT = 0.001  # a smaller p-value: the samples are not of this distribution


FAULTY_SAMPLERS: dict[str, Verify] = {
    "keeps every guess": lambda p, q, guess: (1.0, p),
    "replaces from p": lambda p, q, guess: (min(1.0, float(p[guess] / q[guess])), p),
}


def verify_tables(verify: Verify, p: Distribution, q: Distribution) -> tuple[Distribution, Float[np.ndarray, "V V"]]:
    """For each guess: the probability that it is kept, and the distribution that replaces it.

    A token that is never guessed has 1 and p.
    """
    keep, rest = np.ones(len(p)), np.tile(p, (len(p), 1))
    for guess in np.flatnonzero(q):
        keep[guess], rest[guess] = verify(p.copy(), q.copy(), int(guess))
    return keep, rest


def output_distribution(verify: Verify, p: Distribution, q: Distribution) -> tuple[Distribution, float]:
    """Distribution of the token that comes out, and chance that a guess is kept.

    Exact, by enumeration of all guesses.
    """
    keep, rest = verify_tables(verify, p, q)
    return q * keep + (q * (1 - keep)) @ rest, float(q @ keep)


def draw_tokens(verify: Verify, p: Distribution, q: Distribution, count: int, seed: int) -> Int[np.ndarray, "V"]:
    """Counts of the tokens of `count` speculative draws: guess from q, verify, replace."""
    random = np.random.default_rng(seed)
    keep, rest = verify_tables(verify, p, q)
    guesses = random.choice(len(q), count, p=q)
    kept = random.random(count) < keep[guesses]
    counts = np.bincount(guesses[kept], minlength=len(p))
    for guess, rejected in enumerate(np.bincount(guesses[~kept], minlength=len(p))):
        if rejected:
            counts += np.bincount(random.choice(len(p), rejected, p=rest[guess]), minlength=len(p))
    return counts


@dataclass(frozen=True)
class ChiSquare:
    """Pearson's test: the statistic, its degrees of freedom, and the p-value."""

    statistic: float
    freedom: int
    p_value: float

    def __str__(self) -> str:
        different = self.p_value < SIGNIFICANT
        verdict = message("another distribution") if different else message("no difference found")
        return translate(
            "chi-square {statistic:.1f} with {freedom} degrees of freedom, p = {p_value:.2g}: {verdict}",
            statistic=self.statistic, freedom=self.freedom, p_value=self.p_value, verdict=translate(verdict),
        )  # fmt: skip


def chi_square(counts: Int[np.ndarray, "V"], p: Distribution) -> ChiSquare:
    """Test counts against a distribution.

    A token of probability zero that was drawn gives an infinite statistic.
    """
    if counts[p == 0].any():
        return ChiSquare(float("inf"), int(np.sum(p > 0)) - 1, 0.0)
    expected = counts.sum() * p[p > 0]
    statistic = float(np.sum((counts[p > 0] - expected) ** 2 / expected))
    freedom = len(expected) - 1
    return ChiSquare(statistic, freedom, float(chdtrc(freedom, statistic)))


def chi_square_of(verify: Verify, p: Distribution, q: Distribution, count: int, seed: int) -> str:
    """The test of `count` draws in words, or the error of `verify`."""
    try:
        return str(chi_square(draw_tokens(verify, p, q, count, seed), p))
    except NotImplementedError:
        return translate("not written yet")
    except Exception as error:  # any error of the learner's code is shown in place of the test
        return one_line(error)


@dataclass(frozen=True)
class Overlap:
    """Mean chances, over the places of a text, that a draft's guess is right.

    rejection: guesses are drawn from q and verified by rejection, sum min(p, q). likeliest: the guess is the likeliest
    token of q, and the model draws, p(argmax q). greedy: both take the likeliest token.
    """

    rejection: float
    likeliest: float
    greedy: float


def overlap(logits: Float[np.ndarray, "T V"], draft_logits: Float[np.ndarray, "T V"]) -> Overlap:
    """Compare two models on the same text, at temperature 1."""
    p, q = np.exp(log_softmax(logits)), np.exp(log_softmax(draft_logits))
    guesses = q.argmax(axis=-1)
    return Overlap(
        float(np.minimum(p, q).sum(axis=-1).mean()),
        float(np.take_along_axis(p, guesses[:, None], axis=-1).mean()),
        float(np.mean(guesses == p.argmax(axis=-1))),
    )
