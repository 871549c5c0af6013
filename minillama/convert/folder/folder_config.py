"""config.json of a Hugging Face folder, with defaults, and with RoPE in one form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillama.convert.folder.config_defaults import add_defaults
from minillama.convert.folder.json_files import read_json
from minillama.errors import FormatError, ResourceError, UnsupportedError, quoted

MOST_LAYERS, MOST_TOKENS = 2**16, 2**24  # far more than any model has
LAYER_COUNT = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")
_TEXT_PARTS = ("text_config", "llm_config", "language_config")  # the language model in a model of several kinds
_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
_LOCAL_THETA = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq")


@dataclass(frozen=True, eq=False)
class FolderConfig:
    """Settings of a model.

    values: config.json, its text part at the top level. rope: the settings of RoPE; those of kinds of layers are
    dictionaries in it. layers: with the layers of multi-token prediction that the file will hold.
    """

    folder: Path
    architecture: str
    values: Mapping[str, Any]
    rope: Mapping[str, Any]
    layers: int
    tensor_names: frozenset[str] = frozenset()
    file_type: int = 0

    def find(self, *names: str) -> Any:
        """The first of some settings that is there; None if none is."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), None)

    def need(self, *names: str) -> Any:
        """The first of some settings; FormatError if none is there."""
        found = self.find(*names)
        if found is None:
            raise FormatError(f"config.json has no {' or '.join(names)}; download the folder again")
        return found

    def size(self, *names: str, most: int = 2**31) -> int:
        """A required setting that is a whole number above 0."""
        found = self.need(*names)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 < found <= most:
            raise FormatError(f"config.json: {names[0]} is {quoted(found)}; expected a whole number above 0")
        return found

    @property
    def own_layers(self) -> int:
        """Layers without those of multi-token prediction."""
        return self.size(*LAYER_COUNT, most=MOST_LAYERS)

    @property
    def tokens(self) -> int | None:
        """Size of the vocabulary; None if it is not stated."""
        return None if self.find("vocab_size") is None else self.size("vocab_size", most=MOST_TOKENS)

    @property
    def heads(self) -> int:
        return self.size("num_attention_heads", "n_head", "n_heads")

    @property
    def kv_heads(self) -> int:
        return self.size("num_key_value_heads", "n_kv_heads", "num_attention_heads")

    @property
    def head_size(self) -> int:
        """Size of a head: stated, or the width divided by the heads."""
        return self.find("head_dim") or self.size("hidden_size") // self.heads

    @property
    def global_rope(self) -> Mapping[str, Any]:
        """RoPE settings of the layers that see the whole context."""
        return _settings(self.rope.get("full_attention")) or self.rope

    @property
    def layer_types(self) -> list[str]:
        found = self.need("layer_types")
        if not isinstance(found, list) or len(found) < self.own_layers:
            raise FormatError(f"config.json: layer_types has fewer than {self.own_layers} entries")
        return found


def read_config(folder: Path) -> FolderConfig:
    """Read config.json; raises FormatError, ResourceError and UnsupportedError (quantised weights)."""
    if not (folder / "config.json").exists():
        raise ResourceError(f"{folder} has no config.json; name the folder of a Hugging Face model")
    root = read_json(folder / "config.json")
    text = next((_settings(root[part]) for part in _TEXT_PARTS if part in root), {})
    names = text.get("architectures") or root.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise FormatError(f"{folder / 'config.json'} names no architecture (architectures); download the folder again")
    values = add_defaults({**root, **text})
    _check_quantisation(values)
    config = FolderConfig(folder, names[0], values, _rope(values), 0)
    return FolderConfig(folder, names[0], values, config.rope, config.own_layers)


def _check_quantisation(values: Mapping[str, Any]) -> None:
    method = _settings(values.get("quantization_config")).get("quant_method")
    if method not in (None, "fp8", "mxfp4"):
        raise UnsupportedError(f"the weights are quantised with {quoted(method)}; convert the original model, in BF16")


def _rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """RoPE settings of old and new versions of config.json in the new form."""
    rope = dict(_settings(values.get("rope_parameters") or values.get("rope_scaling")))
    if "full_attention" in rope or "sliding_attention" in rope:
        return rope

    def first(names: tuple[str, ...]) -> Any:
        return next((values[name] for name in names if values.get(name) is not None), None)

    local = first(_LOCAL_THETA)
    if local is not None:
        rope["sliding_attention"] = {"rope_theta": local}
    for key, found in (
        ("rope_theta", first(_THETA)),
        ("rope_type", rope.get("type")),
        ("partial_rotary_factor", first(("partial_rotary_factor", "rope_pct", "rope_percent"))),
        ("original_max_position_embeddings", first(("original_max_position_embeddings",))),
    ):
        if key not in rope and found is not None:
            rope[key] = found
    return rope


def _settings(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
