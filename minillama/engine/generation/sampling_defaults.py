"""Sampling defaults that a model's author wrote into the file: `general.sampling.*`."""

from collections.abc import Mapping

from minillama.sampling import SamplingOptions

_KEYS: dict[str, str] = {
    "sequence": "samplers",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "temp": "temp",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_ent",
    "mirostat_eta": "mirostat_lr",
}


def file_defaults(metadata: Mapping[str, object]) -> SamplingOptions:
    """Options of `Sampling` that the file overrides."""
    found = {field: metadata.get(f"general.sampling.{key}") for key, field in _KEYS.items()}
    return SamplingOptions(**{field: value for field, value in found.items() if value is not None})
