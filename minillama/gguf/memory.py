"""What the metadata alone say about memory."""

import numpy as np

from minillama.gguf.reader import GGUF

CACHE_VALUE_BYTES = 4  # the cache is float32


def cache_bytes_per_token(file: GGUF, value_bytes: int = CACHE_VALUE_BYTES) -> int | None:
    """Bytes of keys and values that one token of the context takes in all layers together.

    None for a file without layers. FormatError where the file does not state the sizes.
    """
    family = file.metadata.get("general.architecture")
    if f"{family}.attention.head_count" not in file.metadata:
        return None
    layers = file.require(f"{family}.block_count", int)
    heads = file.require(f"{family}.attention.head_count", (int, np.ndarray))
    kv_heads = file.metadata.get(f"{family}.attention.head_count_kv", heads)
    embedding = file.require(f"{family}.embedding_length", int)
    default = embedding // max(int(np.max(heads, initial=1)), 1)
    widths = [file.metadata.get(f"{family}.attention.{part}_length", default) for part in ("key", "value")]
    in_all_layers = layers * kv_heads if isinstance(kv_heads, int) else int(np.sum(kv_heads))
    return in_all_layers * sum(widths) * value_bytes
