"""Plan of a quantised file: metadata, order and types of the tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.gguf.display_names import GUESSED_FLAG, guess_file_type, model_dimensions, size_class
from minillama.gguf.header_parser import MetadataValue
from minillama.gguf.header_writer import TensorSpec
from minillama.gguf.imatrix_file import ImportanceMatrix
from minillama.gguf.quantisation_mixes import (
    FLOAT_TYPES,
    MIX_NAMES,
    Mix,
    ModelTraits,
    compatible_type,
    preferred_type,
    quantisable,
)
from minillama.gguf.quantise.row_quantiser import QUANTISERS
from minillama.gguf.reader import GGUF, Tensor
from minillama.gguf.types import TensorType

QUANTISATION_VERSION = 2
LONGEST_TEXT = 127  # bytes of a text in llama.cpp's metadata overrides
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


@dataclass(frozen=True)
class MetadataOverride:
    """A replaced metadata value; `kind` is `u32`, `f32`, `bool` or `string`."""

    key: str
    kind: str
    value: int | float | bool | str


@dataclass(frozen=True, eq=False)
class QuantiseOptions:
    """Options of llama-quantize.

    tensor_types: pairs of a regular expression and a type; the first match counts.
    """

    allow_requantize: bool = False
    leave_output_tensor: bool = False
    pure: bool = False
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    tensor_types: tuple[tuple[str, TensorType], ...] = ()
    overrides: tuple[MetadataOverride, ...] = ()
    importance: ImportanceMatrix | None = None
    threads: int | None = None  # None: the number of allowed cores


@dataclass(frozen=True, eq=False)
class QuantiseStep:
    """One tensor before and after; `preferred` is the type without regard to its row length."""

    source: Tensor
    target: TensorSpec
    preferred: TensorType

    @property
    def copied(self) -> bool:
        return self.source.type is self.target.type


@dataclass(frozen=True, eq=False)
class QuantisePlan:
    """The complete file; `kinds` are the stored types of the metadata."""

    metadata: Mapping[str, MetadataValue]
    kinds: Mapping[str, str]
    steps: tuple[QuantiseStep, ...]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(step.source.size for step in self.steps)

    @property
    def bytes_before(self) -> int:
        """Bytes of all weights in the source."""
        return sum(step.source.nbytes for step in self.steps)

    @property
    def bytes_after(self) -> int:
        """Bytes of all weights in the target."""
        return sum(step.target.nbytes for step in self.steps)

    @property
    def fallbacks(self) -> int:
        """Number of tensors whose row length does not fit the preferred type."""
        return sum(step.preferred is not step.target.type for step in self.steps)


def plan_file(file: GGUF, mix: Mix | None, options: QuantiseOptions = QuantiseOptions()) -> QuantisePlan:
    """Plan the quantisation of a file to a mix; None copies.

    Raises FormatError (no model), OptionError (an invalid regular expression, an override that would break the file)
    and UnsupportedError (a tensor that is already quantised, a type without a quantiser).
    """
    _check(file, options)
    if mix is not None and mix.name not in MIX_NAMES:
        raise UnsupportedError(f"cannot quantise to {mix.name}: its types are only read; known: {', '.join(MIX_NAMES)}")
    metadata, kinds = _metadata(file, mix, options)
    steps = []
    for tensor in sorted(file.tensors.values(), key=_order):
        preferred = _preferred(file, tensor, mix, options)
        found = compatible_type(preferred, tensor.shape[-1]) if preferred is not tensor.type else preferred
        step = QuantiseStep(tensor, TensorSpec(tensor.name, tensor.shape, found), preferred)
        if not step.copied and tensor.type not in FLOAT_TYPES and not options.allow_requantize:
            raise UnsupportedError(
                f"{tensor.name} is already {tensor.type.name}, and quantising twice lowers quality; "
                "quantise the original, or use --allow-requantize"
            )
        steps.append(step)
    return QuantisePlan(metadata, kinds, tuple(steps))


def _check(file: GGUF, options: QuantiseOptions) -> None:
    if not file.architecture or not file.tensors:
        raise FormatError(f"{file.path} contains no model; name a file with weights")
    if any(override.key == "general.alignment" for override in options.overrides):
        raise OptionError("--override-kv general.alignment: the offsets of the weights depend on it; leave it as it is")
    chosen = (options.output_tensor_type, options.token_embedding_type, *(kind for _, kind in options.tensor_types))
    for kind in chosen:
        if kind is not None and kind not in QUANTISERS:
            known = ", ".join(known.name for known in QUANTISERS)
            raise UnsupportedError(f"cannot quantise to {kind.name}; supported: {known}")
    for pattern, _ in options.tensor_types:
        try:
            re.compile(pattern)
        except re.error as error:
            raise OptionError(f"--tensor-type {pattern}: not a regular expression: {error}") from error


def _order(tensor: Tensor) -> tuple[int, bytes]:
    """Sort key of llama.cpp's order: tensors outside layers, then by layer, each by name."""
    match = re.match(r"blk\.(\d+)\.", tensor.name)
    return (int(match[1]) if match else -1), tensor.name.encode()


def _preferred(file: GGUF, tensor: Tensor, mix: Mix | None, options: QuantiseOptions) -> TensorType:
    """Type of a tensor without regard to its row length."""
    name = tensor.name
    if mix is None or not quantisable(name, tensor.shape) or (options.leave_output_tensor and name == "output.weight"):
        return tensor.type
    if options.token_embedding_type is not None and name == "token_embd.weight":
        return options.token_embedding_type
    if options.output_tensor_type is not None and name == "output.weight":
        return options.output_tensor_type
    if mix.base in FLOAT_TYPES:
        return mix.base
    for pattern, kind in options.tensor_types:
        if re.search(pattern, name):
            return kind
    if options.pure:
        return mix.base
    tied = "output.weight" not in file.tensors
    if tied and name == "token_embd.weight" and options.output_tensor_type is not None:
        return options.output_tensor_type
    known = model_dimensions(file)
    traits = ModelTraits(
        known.layers, known.heads, known.kv_heads, tied, known.experts, size_class(file), options.importance is not None
    )
    return preferred_type(mix, name, tensor.shape, traits)


def _metadata(
    file: GGUF, mix: Mix | None, options: QuantiseOptions
) -> tuple[Mapping[str, MetadataValue], Mapping[str, str]]:
    """Metadata of the new file; as in llama.cpp, changed keys move to the end."""
    metadata, kinds = dict(file.metadata), dict(file.kinds)
    new = [
        MetadataOverride("general.quantization_version", "u32", QUANTISATION_VERSION),
        MetadataOverride("general.file_type", "u32", _file_type(file) if mix is None else int(mix.file_type)),
    ]
    importance = options.importance
    for override in (*new, *options.overrides, *(_about(importance) if importance else ())):
        metadata.pop(override.key, None)
        metadata[override.key] = override.value
        kinds[override.key] = override.kind
    for key in SPLIT_KEYS:
        metadata.pop(key, None)
    return MappingProxyType(metadata), MappingProxyType({key: kinds[key] for key in metadata})


def _about(importance: ImportanceMatrix) -> list[MetadataOverride]:
    """Origin of the importances, under llama.cpp's keys."""
    found = [MetadataOverride("quantize.imatrix.file", "string", _short(importance.file))]
    if importance.datasets:
        found.append(MetadataOverride("quantize.imatrix.dataset", "string", _short(importance.datasets[0])))
    found.append(MetadataOverride("quantize.imatrix.entries_count", "u32", len(importance.entries)))
    if importance.chunks > 0:
        found.append(MetadataOverride("quantize.imatrix.chunks_count", "u32", importance.chunks))
    return found


def _short(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:LONGEST_TEXT].decode("utf-8", "surrogateescape")


def _file_type(file: GGUF) -> int:
    """File type from the metadata, or a guess from the most frequent tensor type."""
    stated = file.metadata.get("general.file_type")
    if isinstance(stated, int):
        return stated
    return guess_file_type(file) | GUESSED_FLAG
