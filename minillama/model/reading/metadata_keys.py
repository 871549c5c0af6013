"""Typed look-ups of a model's metadata keys.

The keys, with llama.cpp's defaults and those here, are listed in docs/gguf-keys.md.
"""

import math
from collections.abc import Mapping

import numpy as np

from minillama.errors import FormatError, UnsupportedError, quoted

# Keys that change the numbers of other families, and their values without an effect. llama.cpp ignores those that it
# does not read for a family, and so does minillama.
WITHOUT_EFFECT: Mapping[str, object] = {
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.output_scale": 0.0,
    "attention.scale": 0.0,
    "attention.sliding_window": 0,
    "attention.temperature_scale": 0.0,
    "attention.value_scale": 0.0,
    "attn_logit_softcapping": 0.0,
    "embedding_scale": 1.0,
    "expert_weights_norm": False,
    "expert_weights_scale": 1.0,
    "final_logit_softcapping": 0.0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "rope.freq_base_swa": 10000.0,
    "rope.scaling.alpha": 0.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
}


class MetadataKeys:
    """Look-ups of `<architecture>.<key>`; errors name the key. `used` has the keys that were looked up."""

    def __init__(self, metadata: Mapping[str, object], architecture: str) -> None:
        self.metadata, self.prefix = metadata, architecture
        self.used: set[str] = set()

    def ignored(self) -> list[str]:
        """Keys of the file with an effect in another family, not looked up here."""
        names = {key: f"{self.prefix}.{key}" for key in WITHOUT_EFFECT.keys() - self.used}
        return sorted(
            name
            for key, name in names.items()
            if name in self.metadata and np.any(self.metadata[name] != WITHOUT_EFFECT[key])
        )

    def find(self, key: str, default: object = None) -> object:
        """The value as it is in the file, or the default."""
        self.used.add(key)
        return self.metadata.get(f"{self.prefix}.{key}", default)

    def _one(self, key: str, default: object) -> object:
        value = self.find(key, default)
        name = f"{self.prefix}.{key}"
        if value is None:
            raise FormatError(f"metadata key {name} is missing; convert the model again with a current converter")
        if isinstance(value, np.ndarray):  # one value a layer: fine as long as all are equal
            if value.size == 0 or (value != value.flat[0]).any():
                raise UnsupportedError(f"metadata key {name} differs from layer to layer, which is not supported")
            value = value.flat[0].item()
        return value

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = 2**31) -> int:
        """An integer; raises FormatError outside of `least` to `most`, unless it is the default."""
        value = self._one(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not (least <= value <= most or value == default):
            raise FormatError(
                f"metadata key {self.prefix}.{key} is {quoted(value)}; expected an integer from {least} to {most}"
            )
        return value

    def integers(self, key: str, count: int, default: int | None = None, least: int = 1) -> tuple[int, ...]:
        """One integer for each of `count` layers.

        The file has an array, or one number for all.
        """
        value = self.find(key, default)
        if not isinstance(value, np.ndarray):
            return (self.integer(key, default, least),) * count
        values = value.reshape(-1)
        is_right = values.dtype.kind in "iu" and len(values) >= count and (values[:count] >= least).all()
        if not is_right or (values[:count] > 2**31).any():
            raise FormatError(
                f"metadata key {self.prefix}.{key} is {quoted(list(values))}; expected an integer from {least} on for "
                f"each of {count} layers"
            )
        return tuple(int(one) for one in values[:count])

    def number(self, key: str, default: float | None = None, above: float = -math.inf) -> float:
        """A finite number; raises FormatError up to `above`."""
        value = self._one(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FormatError(f"metadata key {self.prefix}.{key} is {quoted(value)}; expected a finite number")
        if value <= above:
            raise FormatError(f"metadata key {self.prefix}.{key} is {quoted(value)}; expected a number above {above:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        value = self._one(key, default)
        if not isinstance(value, bool):
            raise FormatError(f"metadata key {self.prefix}.{key} is {quoted(value)}; expected true or false")
        return value
