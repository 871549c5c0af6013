"""Read the layers that share keys and values with an earlier layer from GGUF metadata."""

from dataclasses import replace

from minillama.errors import FormatError
from minillama.model.architectures import Family
from minillama.model.layer_kinds import Attention, Layer
from minillama.model.reading.metadata_keys import MetadataKeys


def read_sources(keys: MetadataKeys, row: Family, windows: tuple[int, ...]) -> list[int | None]:
    """The layer whose keys and values each layer reads; None for its own.

    The last layers share those of the last two layers with their own: with a window of the first, else of the second.
    """
    name, blocks = "attention.shared_kv_layers", len(windows)
    shared = keys.integer(name, 0, least=0, most=max(blocks - 2, 0)) if name in row.layer_keys else 0
    own = blocks - shared
    return [None] * own + [own - (2 if window else 1) for window in windows[own:]]


def check_source(number: int, layer: Attention, source: Layer) -> None:
    """Raise FormatError for a layer that cannot read the keys and values of its source."""
    alike = isinstance(source, Attention) and source == replace(layer, head_count=source.head_count, source=None)
    if not alike:
        raise FormatError(
            f"layer {number} shares keys and values with layer {layer.source}, but their heads or windows differ"
        )
