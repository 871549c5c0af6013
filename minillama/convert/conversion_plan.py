"""The plan of a conversion: metadata and tensors, before any weight is read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
from gguf.constants import GGUFValueType

from minillama.convert.families.family_table import find_family
from minillama.convert.family_row import Family
from minillama.convert.folder.folder_config import FolderConfig, read_config
from minillama.convert.folder.json_files import checked
from minillama.convert.folder.safetensors_files import StoredTensor, read_checkpoint
from minillama.convert.general_metadata import read_card
from minillama.convert.output_types import OutputType, named_output_type, tensor_type
from minillama.convert.vocab.entries import Entries, Entry, identifier
from minillama.convert.weights.expert_stacks import ExpertStacks
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.convert.weights.mxfp4_blocks import packed_experts
from minillama.convert.weights.scaled_weights import unscaled
from minillama.convert.weights.tensor_names import gguf_name
from minillama.errors import FormatError, ResourceError, quoted
from minillama.gguf.header_writer import TensorSpec

# Tensors of image and sound encoders, which a text model does not have.
_OTHER_STARTS = ("mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.")
_OTHER_PARTS = (
    "visual.", "vision.", "audio.", "talker.", "vision_", "audio_", "token2wav.", "code2wav.", "projector.",
    "pre_mm_projector_norm", "image_newline", "view_seperator", "patch_embed", "patch_merger.", "model.connector.",
)  # fmt: skip
_UNUSED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
_FLOAT32 = 3.4e38


@dataclass(frozen=True, eq=False)
class ConversionPlan:
    """The output file: metadata, and tensors with their types.

    card: the keys `general.*`. entries: the other keys."""

    folder: Path
    architecture: str
    output: OutputType
    card: gguf.Metadata
    entries: Entries
    weights: tuple[LazyWeight, ...]
    tensors: tuple[TensorSpec, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def plan_folder(
    folder: str | Path,
    output: str = "auto",
    *,
    name: str | None = None,
    pretokenizer: str | None = None,
    vocabulary_only: bool = False,
) -> ConversionPlan:
    """Plan the conversion of a Hugging Face folder.

    output: `f32`, `f16`, `bf16`, `q8_0` or `auto`. name: the model's name. pretokenizer: the name to write, in place of
    the one that is found. vocabulary_only: no tensors. Only headers and small files are read. Raises UnsupportedError
    (architecture, pre-tokenizer, quantised weights), FormatError (damaged files), ResourceError (missing files).
    """
    folder = Path(folder)
    if folder.is_file():
        raise ResourceError(f"{folder} is a file; name the folder that holds config.json and model.safetensors")
    if not folder.is_dir():
        raise ResourceError(f"{folder} is no folder; name the folder of a Hugging Face model")
    with checked("config.json"):
        config = read_config(folder)
        family = find_family(config)
    stored = [] if vocabulary_only else read_checkpoint(folder)
    kind = named_output_type(output, stored)
    with checked("config.json"):
        config = family.adjust(replace(config, tensor_names=frozenset(tensor.name for tensor in stored)))
        config = replace(config, file_type=int(_file_type(config, kind)))
        weights = tuple([] if vocabulary_only else [*family.extra(config), *_weights(stored, family, config)])
        entries = {} if vocabulary_only else _model_entries(family, config)
    tensors = tuple(TensorSpec(weight.name, weight.shape, tensor_type(weight, kind)) for weight in weights)
    _check_names(tensors)
    entries["general.quantization_version"] = identifier(gguf.GGML_QUANT_VERSION)
    with checked("tokenizer.json, tokenizer_config.json or config.json"):
        entries |= family.vocabulary(config, pretokenizer)
    return ConversionPlan(folder, family.name, kind, read_card(folder, name, tensors), entries, weights, tensors)


def _file_type(config: FolderConfig, kind: OutputType) -> int:
    """The file's type; experts in MXFP4 count, whatever the other matrices are."""
    quantised = (config.values.get("quantization_config") or {}).get("quant_method") == "mxfp4"
    return gguf.LlamaFileType.MOSTLY_MXFP4_MOE if quantised and kind is not OutputType.Q8_0 else kind.file_type


def _weights(stored: list[StoredTensor], family: Family, config: FolderConfig) -> Iterator[LazyWeight]:
    """The tensors of the output file, in its order."""
    experts = ExpertStacks(family.experts, _expert_count(config))
    weights = list(_named(stored, family, config))
    for weight in packed_experts(unscaled(weights, config)):
        for ready in experts.add(weight):
            for changed in _changed(ready, family, config):
                yield changed.renamed(gguf_name(changed.name, family.names))
    experts.finish()


def _expert_count(config: FolderConfig) -> int:
    found = config.find("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return found if isinstance(found, int) else 0


def _named(stored: list[StoredTensor], family: Family, config: FolderConfig) -> Iterator[LazyWeight]:
    """Tensors of the text model, with the names that the family expects."""
    for tensor in stored:
        name = tensor.name
        if name.startswith(_OTHER_STARTS) or any(part in name for part in _OTHER_PARTS) or name.endswith(_UNUSED):
            continue
        name = name.replace("e_score_correction_bias", "e_score_correction.bias").replace("language_model.", "")
        renamed = family.name_of(name, config)
        if renamed is not None:
            yield LazyWeight(renamed, tensor.shape, tensor.pieces)


def _changed(weight: LazyWeight, family: Family, config: FolderConfig) -> list[LazyWeight]:
    """The weight after all changes whose expression is found in its name."""
    weights = [weight]
    for pattern, change in family.changes:
        results = [change(each, config) if re.search(pattern, each.name) else each for each in weights]
        weights = [each for some in results for each in (some if isinstance(some, list) else [some])]
    return weights


def _check_names(tensors: tuple[TensorSpec, ...]) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise FormatError(f"two tensors of the checkpoint are {tensor.name}; download the folder again")
        seen.add(tensor.name)


def _model_entries(family: Family, config: FolderConfig) -> Entries:
    """Metadata of the model; of keys with one name the last counts."""
    entries: Entries = {}
    for key in family.keys:
        value = key.value(config)
        if value is not None:
            name = key.name if key.name.startswith(("general.", "tokenizer.")) else f"{family.name}.{key.name}"
            entries[name] = _entry(name, key.type, value)
    return entries


def _are_numbers(values: Sequence[object]) -> bool:
    """True for whole numbers or booleans, all of one type; false for none."""
    kinds = {type(value) for value in values}
    return kinds == {bool} or (kinds == {int} and all(abs(value) < 2**31 for value in values))  # type: ignore[arg-type]


def _entry(name: str, kind: GGUFValueType, value: object) -> Entry:
    """An entry with a value of its type; FormatError if config.json states another."""
    if kind is GGUFValueType.UINT32 and isinstance(value, list | tuple):
        kind = GGUFValueType.ARRAY
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FLOAT32
    fits = {
        GGUFValueType.UINT32: whole,
        GGUFValueType.FLOAT32: number,
        GGUFValueType.BOOL: isinstance(value, bool),
        GGUFValueType.STRING: isinstance(value, str),
        GGUFValueType.ARRAY: isinstance(value, list | tuple) and _are_numbers(value),
    }
    if not fits[kind]:
        raise FormatError(f"config.json gives {name} the value {quoted(value)}; expected {kind.name.lower()}")
    return Entry(kind, float(value) if kind is GGUFValueType.FLOAT32 else value)  # type: ignore[arg-type]
