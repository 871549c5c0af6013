"""KL divergence between the token distributions of a base model and another model.

The other model is usually a quantised one. The base model writes its log-probabilities to a file (`record_base`). The
other model is compared with them token by token (`running_divergence`). Statistics and error bars are those of
llama-perplexity.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Bool, Float, Float32, Int, UInt16
from minillama.engine.backends.chunked_logits import negative_log_likelihood, over_positions
from minillama.engine.backends.finite import check_finite
from minillama.engine.compile.compile_timer import Stopwatch
from minillama.engine.llm import LLM
from minillama.errors import FormatError, OptionError
from minillama.measure.quality.kld_base_file import RANGE, BaseFile, Codes, create_base, encode, pack, unpack
from minillama.measure.quality.perplexity import Estimate, Tally, exp
from minillama.measure.quality.text_windows import (
    Stop,
    Windows,
    check_model,
    hidden_states,
    never_stop,
    windows_of,
)
from minillama.model import Config, Params

_MIN_TOKENS = 10  # for an error bar


class ValueAndError(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Divergence:
    """Statistics of two models over the windows so far; arrays have one value per token."""

    chunk: int
    chunks: int
    nll: Float32[np.ndarray, "tokens"]
    nll_base: Float32[np.ndarray, "tokens"]
    kld: Float32[
        np.ndarray, "tokens"
    ]  # Σ p_base (ln p_base - ln p), in nats, over tokens within 16 nats of the likeliest
    p_diff: Float32[np.ndarray, "tokens"]  # p - p_base of the actual token
    same_top: Bool[np.ndarray, "tokens"]  # whether both models have the same likeliest token
    seconds: float  # since the start, without compile time

    @property
    def count(self) -> int:
        """Number of scored tokens."""
        return len(self.nll)

    @property
    def log_ppl(self) -> ValueAndError:
        """Mean negative log-likelihood of the model."""
        return mean_and_error(self.nll)

    @property
    def log_ppl_base(self) -> ValueAndError:
        """Mean negative log-likelihood of the base model."""
        return mean_and_error(self.nll_base)

    @property
    def ppl(self) -> ValueAndError:
        """Perplexity of the model."""
        return exponential(self.log_ppl)

    @property
    def ppl_base(self) -> ValueAndError:
        """Perplexity of the base model."""
        return exponential(self.log_ppl_base)

    @property
    def covariance(self) -> float:
        """Covariance of the two means."""
        if self.count < _MIN_TOKENS:
            return 0.0
        nll, base = self.nll.astype(np.float64), self.nll_base.astype(np.float64)
        return float(np.mean(nll * base) - np.mean(nll) * np.mean(base)) / (self.count - 1)

    @property
    def correlation(self) -> float:
        """Correlation of the two means, -1 to 1."""
        return self.covariance / (self.log_ppl.error * self.log_ppl_base.error)

    @property
    def log_ratio(self) -> ValueAndError:
        """ln(PPL / PPL of the base); errors that both models share cancel."""
        ours, base = self.log_ppl, self.log_ppl_base
        variance = ours.error**2 + base.error**2 - 2 * self.covariance
        return ValueAndError(ours.value - base.value, math.sqrt(max(0.0, variance)))

    @property
    def ratio(self) -> ValueAndError:
        """PPL / PPL of the base."""
        return exponential(self.log_ratio)

    @property
    def difference(self) -> ValueAndError:
        """PPL - PPL of the base."""
        ours, base = self.ppl, self.ppl_base
        variance = ours.error**2 + base.error**2 - 2 * ours.value * base.value * self.covariance
        return ValueAndError(ours.value - base.value, math.sqrt(max(0.0, variance)))

    @property
    def mean_kld(self) -> ValueAndError:
        """Mean KL divergence of a token, in nats."""
        return mean_and_error(self.kld)

    @property
    def mean_p_diff(self) -> ValueAndError:
        """Mean of p - p_base."""
        return mean_and_error(self.p_diff)

    @property
    def rms_p_diff(self) -> ValueAndError:
        """Root mean square of p - p_base."""
        mean = mean_and_error(np.square(self.p_diff.astype(np.float64)))
        root = math.sqrt(mean.value)
        return ValueAndError(root, 0.5 / root * mean.error if root else 0.0)

    @property
    def same_top_share(self) -> ValueAndError:
        """Share of tokens with the same likeliest token in both models."""
        share = float(np.mean(self.same_top))
        return ValueAndError(share, math.sqrt(share * (1 - share) / (self.count - 1)) if self.count > 1 else 0.0)


def mean_and_error(values: Float[np.ndarray, "tokens"]) -> ValueAndError:
    """The mean and its standard error; the error is 0 for ten values or fewer."""
    exact = values.astype(np.float64)
    mean = float(np.mean(exact))
    variance = float(np.mean(np.square(exact))) - mean * mean
    return ValueAndError(
        mean, math.sqrt(variance / (len(exact) - 1)) if variance > 0 and len(exact) > _MIN_TOKENS else 0.0
    )


def exponential(number: ValueAndError) -> ValueAndError:
    """exp of a value, with its error propagated."""
    value = exp(number.value)
    return ValueAndError(value, value * number.error)


def percentile(values: Float[np.ndarray, "tokens"], share: float) -> float:
    """The quantile at `share` (0 to 1), with linear interpolation."""
    return float(np.quantile(values.astype(np.float64), share))


def record_base(llm: LLM, windows: Windows, path: str | Path, stop: Stop = never_stop) -> Iterator[Estimate]:
    """Write the log-probabilities of windows (`chunked`) to a file, and yield running perplexities.

    The file gets its name after the last estimate; if the iteration stops earlier, the file is deleted.
    Raises ResourceError if it cannot be written.
    """
    tally, found, stopwatch = Tally(windows.count), [], Stopwatch()
    head = llm.params.head_only()
    with create_base(path, llm.config.vocab_size, windows.text) as file:
        for piece in hidden_states(llm, windows, stop):
            nll, codes = _encode(head, llm.config, piece.hidden, piece.of(windows.targets))
            found.append((np.asarray(nll), Codes(*map(np.asarray, codes))))
            if piece.stop < windows.scored:
                continue
            seconds = stopwatch.seconds() / piece.count
            for row in range(piece.count):
                for _, codes in found:
                    file.write(pack(Codes(*(part[row] for part in codes))).tobytes())
                yield tally.add(np.concatenate([nll[row] for nll, _ in found]), seconds)
            found = []


def running_divergence(
    llm: LLM, base: BaseFile, *, chunks: int | None = None, stop: Stop = never_stop
) -> Iterator[Divergence]:
    """Compare a model with a base file (`open_base`), window by window; raises like `base_windows`."""
    return divergences(llm, base, base_windows(llm, base, chunks), stop)


def divergences(llm: LLM, base: BaseFile, windows: Windows, stop: Stop = never_stop) -> Iterator[Divergence]:
    """Compare a model with the log-probabilities in a base file, over the same windows.

    Raises NonFiniteError if the model computes NaN or infinite logits, FormatError if the file holds such numbers.
    """
    fields: list[list[np.ndarray]] = [[] for _ in TokenComparison._fields]
    found, passed, stopwatch = [], 0.0, Stopwatch()
    head = llm.params.head_only()
    for piece in hidden_states(llm, windows, stop):
        base.check_complete()
        records = piece.of(base.records)
        scale, minimum, codes = unpack(records.reshape(-1, records.shape[-1]), base.vocab_size)
        here = records.shape[:2]
        pair = _compare(
            head, llm.config, piece.hidden, piece.of(windows.targets),
            scale.reshape(here), minimum.reshape(here), codes.reshape(*here, -1),
        )  # fmt: skip
        arrays = TokenComparison(*map(np.asarray, pair))
        check_finite(arrays.nll[: piece.count])
        if not (np.isfinite(arrays.nll_base) & np.isfinite(arrays.kld))[: piece.count].all():
            raise FormatError(f"{base.path.name} holds NaN or infinite log-probabilities; record it again")
        found.append(arrays)
        if piece.stop < windows.scored:
            continue
        seconds = stopwatch.seconds() / piece.count
        for row in range(piece.count):
            passed += seconds
            for field, *parts in zip(fields, *found, strict=True):
                field.extend(part[row] for part in parts)
            arrays = [np.concatenate(field) for field in fields]
            yield Divergence(piece.window + row + 1, windows.count, *arrays, passed)
        found = []


def base_windows(llm: LLM, base: BaseFile, chunks: int | None = None) -> Windows:
    """The windows whose log-probabilities are in a base file.

    Raises OptionError if the vocabularies differ or the context is smaller than the windows.
    """
    if base.vocab_size != llm.config.vocab_size:
        raise OptionError(
            f"{base.path.name} has a vocabulary of {base.vocab_size}, but {llm.path.name} of {llm.config.vocab_size}"
        )
    size = base.tokens.shape[1]
    check_model(llm, size)
    return windows_of(llm, base.tokens[:chunks], size // 2)


class TokenComparison(NamedTuple):
    """Statistics of the two models at some positions; the arrays of `Divergence`."""

    nll: Float[Array, "*n"]
    nll_base: Float[Array, "*n"]
    kld: Float[Array, "*n"]
    p_diff: Float[Array, "*n"]
    same_top: Bool[Array, "*n"]


def compare(
    logits: Float[Array, "n V"],
    targets: Int[Array, "n"],
    scale: Float[Array, "n"],
    minimum: Float[Array, "n"],
    codes: UInt16[Array, "n V"],
) -> TokenComparison:
    """Compare the logits of a model with the log-probabilities of the base."""
    base = scale[:, None] * codes.astype(jnp.float32) + minimum[:, None]
    ours = jax.nn.log_softmax(logits, axis=-1)
    nll = negative_log_likelihood(logits, targets)
    nll_base = -jnp.take_along_axis(base, targets[:, None], axis=-1)[:, 0]
    kld = jnp.sum(jnp.where(base > -RANGE, jnp.exp(base) * (base - ours), 0), axis=-1)
    same = jnp.argmax(logits, axis=-1) == jnp.argmax(codes, axis=-1)
    return TokenComparison(nll, nll_base, kld, jnp.exp(-nll) - jnp.exp(-nll_base), same)


@partial(jax.jit, static_argnames="config")
def _encode(
    head: Params, config: Config, hidden: Float[Array, "B T D"], targets: Int[Array, "B T"]
) -> tuple[Float[Array, "B T"], Codes]:
    def both(logits: Float[Array, "n V"], targets: Int[Array, "n"]) -> tuple[Float[Array, "n"], Codes]:
        return negative_log_likelihood(logits, targets), encode(logits)

    return over_positions(both, head, config, hidden, targets)


@partial(jax.jit, static_argnames="config")
def _compare(
    head: Params,
    config: Config,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    scale: Float[Array, "B T"],
    minimum: Float[Array, "B T"],
    codes: UInt16[Array, "B T V"],
) -> TokenComparison:
    return over_positions(compare, head, config, hidden, targets, scale, minimum, codes)
