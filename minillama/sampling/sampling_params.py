"""Sampling options under llama.cpp's names, with its defaults, off values and checks. No JAX here."""

import math
import secrets
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TypedDict, no_type_check

from minillama.errors import OptionError
from minillama.option_values import check_flag
from minillama.sampling.sampler_order import DEFAULT_ORDER, Sampler, parse_order

MAX_SEED = 2**32 - 1
MAX_WINDOW = 2**20
_FLOAT32_MAX = 3.4028234e38

_INT_RANGES = {
    "seed": (-1, MAX_SEED),
    "top_k": (-(2**31), 2**31 - 1),
    "repeat_last_n": (0, MAX_WINDOW),
    "dry_allowed_length": (0, MAX_WINDOW),
    "dry_penalty_last_n": (0, MAX_WINDOW),
    "mirostat": (0, 2),
    "min_keep": (0, 2**31 - 1),
    "n_probs": (0, 2**31 - 1),
}
_FLOAT_RANGES = {
    "temp": (-_FLOAT32_MAX, _FLOAT32_MAX),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical": (0.0, 1.0),
    "top_nsigma": (-_FLOAT32_MAX, _FLOAT32_MAX),
    "repeat_penalty": (1e-30, 1e30),  # a divisor: its inverse must be finite too
    "presence_penalty": (-_FLOAT32_MAX, _FLOAT32_MAX),
    "frequency_penalty": (-_FLOAT32_MAX, _FLOAT32_MAX),
    "dry_multiplier": (-_FLOAT32_MAX, _FLOAT32_MAX),
    "dry_base": (0.0, _FLOAT32_MAX),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dynatemp_range": (0.0, _FLOAT32_MAX),
    "dynatemp_exp": (0.0, _FLOAT32_MAX),
    "mirostat_ent": (0.0, _FLOAT32_MAX),
    "mirostat_lr": (0.0, _FLOAT32_MAX),
}


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as typed keyword arguments (`**options: Unpack[SamplingOptions]`)."""

    seed: int
    temp: float
    top_k: int
    top_p: float
    min_p: float
    typical: float
    top_nsigma: float
    repeat_last_n: int
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: tuple[int, ...]
    xtc_probability: float
    xtc_threshold: float
    dynatemp_range: float
    dynatemp_exp: float
    mirostat: int
    mirostat_ent: float
    mirostat_lr: float
    logit_bias: tuple[tuple[int, float], ...]
    samplers: str
    min_keep: int
    n_probs: int
    post_sampling_probs: bool


@no_type_check  # __post_init__ checks the values, and accepts 1 for 1.0
@dataclass(frozen=True)
class Sampling:
    """Options of the sampler chain, named after llama.cpp's long flags, with its defaults.

    Raises OptionError with the field, its value and the valid range.
    """

    seed: int = -1  # -1: random
    temp: float = 0.8  # <= 0: greedy
    top_k: int = 40  # <= 0: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.05  # 0: off
    typical: float = 1.0  # 1: off
    top_nsigma: float = -1.0  # <= 0: off
    repeat_last_n: int = 64  # tokens in the penalty window; 0: off
    repeat_penalty: float = 1.0  # 1: off
    presence_penalty: float = 0.0  # 0: off
    frequency_penalty: float = 0.0  # 0: off
    dry_multiplier: float = 0.0  # 0: off
    dry_base: float = 1.75  # < 1: off
    dry_allowed_length: int = 2  # shorter repeats are not penalised
    dry_penalty_last_n: int = 64  # 0: off
    dry_sequence_breakers: tuple[int, ...] = ()  # ids of tokens that end a repeat; in llama.cpp those with \n : " *
    xtc_probability: float = 0.0  # 0: off
    xtc_threshold: float = 0.1  # > 0.5: off
    dynatemp_range: float = 0.0  # 0: off
    dynatemp_exp: float = 1.0
    mirostat: int = 0  # 1 or 2: replaces all samplers except temperature
    mirostat_ent: float = 5.0  # tau, the target surprise in bits
    mirostat_lr: float = 0.1  # eta
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, bias); -inf: never
    samplers: str = DEFAULT_ORDER  # names separated by ;, or letters
    min_keep: int = 0  # top_p, min_p, typical and xtc leave at least this many candidates
    n_probs: int = 0  # likeliest tokens to report for each sampled one
    post_sampling_probs: bool = False  # report those after the chain instead of the model's own

    def __post_init__(self) -> None:
        for name, (low, high) in _INT_RANGES.items():
            self._set(name, _checked_int(name, getattr(self, name), low, high))
        for name, (low, high) in _FLOAT_RANGES.items():
            self._set(name, _checked_float(name, getattr(self, name), low, high))
        check_flag("post_sampling_probs", self.post_sampling_probs)
        if not isinstance(self.samplers, str):
            raise OptionError(f"samplers is {self.samplers!r}; it should be names with ';' between them, or letters")
        parse_order(self.samplers)
        self._set("dry_sequence_breakers", _checked_token_ids("dry_sequence_breakers", self.dry_sequence_breakers))
        self._set("logit_bias", _checked_biases(self.logit_bias))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # numpy numbers become Python's, lists become tuples

    @property
    def order(self) -> tuple[Sampler, ...]:
        """The stages of the chain in order; mirostat replaces all except temperature."""
        return (Sampler.TEMPERATURE,) if self.mirostat else parse_order(self.samplers)

    def enabled(self, sampler: Sampler) -> bool:
        """True if a stage has an effect with these values; llama.cpp's conditions."""
        match sampler:
            case Sampler.PENALTIES:
                penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
                return self.repeat_last_n > 0 and penalties != (1.0, 0.0, 0.0)
            case Sampler.DRY:
                return self.dry_multiplier != 0.0 and self.dry_base >= 1.0 and self.dry_penalty_last_n > 0
            case Sampler.TOP_N_SIGMA:
                return self.top_nsigma > 0.0
            case Sampler.TOP_K:
                return self.top_k > 0
            case Sampler.TYP_P:
                return self.typical < 1.0
            case Sampler.TOP_P:
                return self.top_p < 1.0
            case Sampler.MIN_P:
                return self.min_p > 0.0
            case Sampler.XTC:
                return self.xtc_probability > 0.0 and self.xtc_threshold <= 0.5
            case Sampler.TEMPERATURE:
                return self.temp != 1.0 or (self.dynatemp_range > 0.0 and not self.mirostat)

    def describe(self) -> str:
        """llama.cpp's printed line for the chain; `?name` marks a stage without effect."""
        stages = ["logit-bias"] if self.logit_bias else []
        for sampler in self.order:
            printed = "temp" if self.mirostat else sampler.printed
            stages.append(printed if self.enabled(sampler) else f"?{printed}")
        stages.append(("dist", "mirostat", "mirostat-v2")[self.mirostat])
        return "sampler chain: " + " -> ".join(["logits", *stages])


FIELDS = tuple(field.name for field in fields(Sampling))


def resolve_seed(seed: int) -> int:
    """Return the seed, or a random one (0 to 2**32 - 2) if it is negative."""
    return secrets.randbelow(MAX_SEED) if seed < 0 else int(seed)


def _checked_int(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise OptionError(f"{name} is {value!r}; it should be a whole number from {low} to {high}")
    return int(value)


def _checked_float(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:  # nan is in no range
        span = "a finite number" if low == -_FLOAT32_MAX else f"a number from {low:g} to {high:g}"
        raise OptionError(f"{name} is {value!r}; it should be {span}")
    return float(value)


def _checked_token_ids(name: str, value: object) -> tuple[int, ...]:
    try:
        ids = tuple(value)  # type: ignore[call-overload]
    except TypeError:
        raise OptionError(f"{name} is {value!r}; it should be a sequence of token ids") from None
    return tuple(_checked_int(f"{name}[{index}]", token, 0, 2**31 - 1) for index, token in enumerate(ids))


def _checked_biases(value: object) -> tuple[tuple[int, float], ...]:
    try:
        pairs = [(token, bias) for token, bias in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise OptionError(f"logit_bias is {value!r}; it should be pairs of a token id and a number") from None
    checked = []
    for index, (token, bias) in enumerate(pairs):
        good = bias if bias == -math.inf else _checked_float(f"logit_bias[{index}]", bias, -_FLOAT32_MAX, _FLOAT32_MAX)
        checked.append((_checked_int(f"logit_bias[{index}] token", token, 0, 2**31 - 1), float(good)))
    return tuple(checked)
