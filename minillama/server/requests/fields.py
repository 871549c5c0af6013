"""Fields of a completion request, with llama-server's names, types and ranges.

A number out of a soft range is clamped, one out of a hard range is refused. Null means that the field is absent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from minillama.server.http_errors import invalid

INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4028234e38


class Kind(Enum):
    """The type of a field."""

    INT = "whole number"
    FLOAT = "number"
    BOOL = "boolean"


@dataclass(frozen=True)
class Field:
    """A field; the first name is the one that answers show, the others are aliases."""

    names: tuple[str, ...]
    kind: Kind = Kind.FLOAT
    low: float = -FLOAT_MAX
    high: float = FLOAT_MAX
    is_hard: bool = False

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]


def _count(*names: str, low: int = 0, high: int = INT_MAX) -> Field:
    return Field(names, Kind.INT, low, high, is_hard=True)


def _flag(name: str) -> Field:
    return Field((name,), Kind.BOOL)


FLAGS = tuple(
    _flag(name)
    for name in ("verbose", "timings_per_token", "stream", "cache_prompt", "return_tokens", "return_progress",
                 "post_sampling_probs", "backend_sampling", "ignore_eos", "grammar_lazy", "echo")
)  # fmt: skip
COUNTS = (
    _count("sse_ping_interval", low=-1),
    _count("n_predict", "max_completion_tokens", "max_tokens", low=-1),
    _count("n_indent"),
    _count("n_keep", low=-1),
    _count("n_discard"),
    _count("n_cache_reuse"),
    Field(("t_max_predict_ms",), Kind.INT, -1, 2**63 - 1, is_hard=True),
    Field(("n_probs", "logprobs"), Kind.INT, 0, INT_MAX),
)
# Field -> name of the option of `Sampling`.
SAMPLING: Mapping[Field, str] = {
    Field(("top_k",), Kind.INT, 0, INT_MAX): "top_k",
    Field(("top_p",), low=0.0, high=1.0): "top_p",
    Field(("min_p",), low=0.0, high=1.0): "min_p",
    Field(("top_n_sigma",)): "top_nsigma",
    Field(("xtc_probability",), low=0.0, high=1.0): "xtc_probability",
    Field(("xtc_threshold",), low=0.0, high=1.0): "xtc_threshold",
    Field(("typical_p",), low=0.0, high=1.0): "typical",
    Field(("temperature",), low=0.0): "temp",
    Field(("dynatemp_range",), low=0.0): "dynatemp_range",
    Field(("dynatemp_exponent",), low=0.0): "dynatemp_exp",
    _count("repeat_last_n", high=2**20): "repeat_last_n",
    Field(("repeat_penalty",), low=1e-30, high=1e30): "repeat_penalty",
    Field(("frequency_penalty",)): "frequency_penalty",
    Field(("presence_penalty",)): "presence_penalty",
    Field(("dry_multiplier",)): "dry_multiplier",
    Field(("dry_base",), low=0.0): "dry_base",
    _count("dry_allowed_length", high=2**20): "dry_allowed_length",
    _count("dry_penalty_last_n", high=2**20): "dry_penalty_last_n",
    Field(("mirostat",), Kind.INT, 0, 2): "mirostat",
    Field(("mirostat_tau",), low=0.0): "mirostat_ent",
    Field(("mirostat_eta",), low=0.0): "mirostat_lr",
    _count("min_keep"): "min_keep",
}


def read_fields(body: Mapping[str, object], fields: Iterable[Field]) -> dict[str, int | float | bool]:
    """The values of the fields that the body has, by first name.

    Raises RequestError for a wrong value.
    """
    found = {}
    for field in fields:
        given = next((name for name in field.names if body.get(name) is not None), None)
        if given is not None:
            found[field.name] = read_value(field, given, body[given])
    return found


def read_value(field: Field, name: str, value: object) -> int | float | bool:
    """A checked value; `name` is the one in the request."""
    if field.kind is Kind.BOOL:
        if not isinstance(value, bool):
            raise wrong_type(name, "boolean", value)
        return value
    if not isinstance(value, int | float):
        raise wrong_type(name, "number", value)
    inside = min(max(value, field.low), field.high)
    if field.is_hard and int(inside) != (int(value) if abs(value) < 2**64 else value):
        low, high = int(field.low), int(field.high)
        raise invalid(f"Field '{name}': Value must be between {low} <= value <= {high}, but got {value:.20g}")
    return int(inside) if field.kind is Kind.INT else float(inside)


def read_flag(body: Mapping[str, object], name: str, default: bool) -> bool:
    """A boolean, or the default."""
    return bool(read_fields(body, (_flag(name),)).get(name, default))


def wrong_type(name: str, expected: str, value: object) -> Exception:
    """The error of a field with a value of another type."""
    return invalid(f"Field '{name}': type must be {expected}, but is {json_type(value)}")


def json_type(value: object) -> str:
    """The JSON name of a value's type."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
