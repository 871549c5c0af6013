"""The smallest of several quantised models whose quality a text does not reject."""

from collections.abc import Mapping, Sequence

import numpy as np

from minillama.engine.llm import LLM
from minillama.errors import OptionError
from minillama.lab.benchmarks.ratio_interval import Interval
from minillama.lab.experiments.quantised_storytellers import log_softmax, scored_logits

WORSE = 0.02  # a perplexity of at most 2 percent more counts as the same quality


def token_nll(llm: LLM, ids: Sequence[int], ctx_size: int = 256) -> np.ndarray:
    """Negative log-likelihood of each scored token of a text."""
    windows = scored_logits(llm, ids, ctx_size)
    return np.concatenate([-log_softmax(x[:-1])[np.arange(len(t) - 1), t[1:]] for x, t in windows])


def smallest_equal(
    nll: Mapping[str, np.ndarray], sizes: Mapping[str, int], base: str, *, worse: float = WORSE,
    tokens: np.ndarray | None = None,
) -> str:  # fmt: skip
    """Name of the smallest model of the quality of `base`.

    Its perplexity on `tokens` is at most the share `worse` above that of `base`. tokens: indices; None for all.
    Raises OptionError if a likelihood or a size is missing.
    """
    if base not in nll or nll.keys() != sizes.keys():
        raise OptionError(f"models of sizes {sorted(sizes)} and of likelihoods {sorted(nll)}; both need {base!r}")
    chosen = slice(None) if tokens is None else tokens
    limit = nll[base][chosen].mean() + np.log1p(worse)
    return min(
        (name for name in nll if name == base or nll[name][chosen].mean() <= limit), key=lambda name: sizes[name]
    )


def fair_shrink(
    nll: Mapping[str, np.ndarray], sizes: Mapping[str, int], base: str, *, worse: float = WORSE,
    resamples: int = 400, seed: int = 11,
) -> Interval:  # fmt: skip
    """Size of `base` over that of the smallest model of equal quality, with its interval.

    It is the 95 % interval of a bootstrap (Efron, 1979). The tokens are resampled for all models together, because all
    have read the same ones.
    """
    random, count = np.random.default_rng(seed), len(nll[base])
    found = [
        sizes[base] / sizes[smallest_equal(nll, sizes, base, worse=worse, tokens=random.integers(count, size=count))]
        for _ in range(resamples)
    ]
    return Interval(float(np.percentile(found, 2.5, method="lower")),
                    sizes[base] / sizes[smallest_equal(nll, sizes, base, worse=worse)],
                    float(np.percentile(found, 97.5, method="higher")))  # fmt: skip
