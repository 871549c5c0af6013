"""What one token asks of the machine, by formula: bytes read from memory, and weights multiplied."""

from collections.abc import Iterable
from math import prod

from minillama.engine.loader import unused_tensors
from minillama.gguf import GGUF
from minillama.gguf.memory import CacheTypes
from minillama.model import Config


def weight_bytes(file: GGUF, config: Config) -> int:
    """Bytes of weights that a decode step reads.

    All tensors once, but of experts only those used, and of a token embedding that is not also the head one row.
    """
    untied = "output.weight" in file.tensors
    unused = set(unused_tensors(file, config))
    total = 0
    for name, tensor in file.tensors.items():
        if name in unused:
            continue
        if name == "token_embd.weight" and untied:
            total += tensor.nbytes // tensor.shape[0]
        else:
            total += tensor.nbytes * _used(name, config) // _stored(name, config)
    return total


def prompt_weights(file: GGUF, config: Config) -> int:
    """Weights that each token of a prompt is multiplied with: the layers' matrices, of experts those used.

    Not the head: of a prompt only the last token's logits are wanted.
    """
    unused = set(unused_tensors(file, config))
    return sum(
        prod(tensor.shape) * _used(name, config) // _stored(name, config)
        for name, tensor in file.tensors.items()
        if name.startswith("blk.") and len(tensor.shape) > 1 and name not in unused
    )


def cache_bytes_read(config: Config, types: CacheTypes, lengths: Iterable[int]) -> float:
    """Bytes of keys and values that a decode step reads, on average over steps that attend to these many positions.

    Layers with a sliding window read no more than the window.
    """
    steps = list(lengths)
    positions = 0
    for layer in range(config.block_count):
        positions += sum(min(n, config.sliding_window) if config.is_local(layer) else n for n in steps)
    per_position = config.head_count_kv * types.head_bytes(config.key_length, config.value_length)
    return per_position * positions / max(len(steps), 1)


def _used(name: str, config: Config) -> int:
    return config.expert_used_count if _is_expert(name) else 1


def _stored(name: str, config: Config) -> int:
    return config.expert_count if _is_expert(name) else 1


def _is_expert(name: str) -> bool:
    return "_exps." in name
