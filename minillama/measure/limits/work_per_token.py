"""Bytes read and operations per token, by formula."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from minillama.engine.loading.load_params import unread_tensors
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.measure.trial import Trial
from minillama.model import Config
from minillama.model.layer_kinds import Attention, attention_of, source_of
from minillama.model.state_sizes import position_bytes, state_bytes

PER_LAYER_TABLE = "per_layer_token_embd.weight"


@dataclass(frozen=True)
class Work:
    """Work of one token, on average over a test."""

    bytes: float  # read from memory
    operations: float  # floating-point; a multiply-add counts as two

    @property
    def intensity(self) -> float:
        """Operations per byte read."""
        return self.operations / self.bytes


def trial_work(file: GGUF, config: Config, types: CacheTypes, trial: Trial, ubatch_size: int = 512) -> Work:
    """Work per token of a test, by formula.

    Activations and data in CPU caches are not counted. A prompt reads the layers once per chunk of ubatch_size tokens,
    and the head once. Each generated token reads everything once.
    """
    size, operations = 0.0, 0.0
    if trial.n_prompt:
        ends = range(trial.n_depth + 1, trial.n_depth + trial.n_prompt + 1)
        for start in range(0, trial.n_prompt, ubatch_size):
            tokens = min(ubatch_size, trial.n_prompt - start)
            size += weight_bytes(file, config, tokens, head=start + tokens == trial.n_prompt)
            size += cache_bytes_read(config, types, [trial.n_depth + start + tokens])
        operations += 2 * (trial.n_prompt * prompt_weights(file, config) + head_weights(config))
        operations += attention_operations(config, ends)
    if trial.n_gen:
        ends = range(trial.n_depth + trial.n_prompt + 1, trial.positions + 1)
        size += trial.n_gen * (weight_bytes(file, config) + cache_bytes_read(config, types, ends))
        operations += 2 * trial.n_gen * (prompt_weights(file, config) + head_weights(config))
        operations += attention_operations(config, ends)
    tokens = trial.n_prompt + trial.n_gen
    return Work(size / tokens, operations / tokens)


def weight_bytes(file: GGUF, config: Config, tokens: int = 1, *, head: bool = True) -> int:
    """Bytes of weights that a pass over some tokens reads.

    A decode step has one token. All tensors count once, with two exceptions: only as many experts as the tokens can
    select, and one row per token of per-layer embeddings and of a token embedding that is not also the head.
    head: whether logits are computed.
    """
    tied = "output.weight" not in file.tensors
    unread = set(unread_tensors(file, config))
    total = 0
    for name, tensor in file.tensors.items():
        if name in unread or (name.startswith("output.") and not head):
            continue
        if name == PER_LAYER_TABLE or (name == "token_embd.weight" and not (tied and head)):
            total += tokens * tensor.nbytes // tensor.shape[0]
        else:
            stored = _stored(name, config)
            total += tensor.nbytes * min(stored, tokens * _used(name, config)) // stored
    return total


def prompt_weights(file: GGUF, config: Config) -> int:
    """Number of weights that each prompt token is multiplied with.

    These are the matrices of the layers, with active experts only. The head is left out, because only the last token of
    a prompt needs logits; so are the last layers if they read the keys and values of earlier ones.
    """
    left_out = {*unread_tensors(file, config), PER_LAYER_TABLE, "token_embd.weight", "output.weight"}
    sources = [source_of(layer) for layer in config.layers]
    shared = tuple(f"blk.{layer}." for layer, source in enumerate(sources) if source is not None)
    return sum(
        prod(tensor.shape) * _used(name, config) // _stored(name, config)
        for name, tensor in file.tensors.items()
        if len(tensor.shape) > 1 and name not in left_out and not name.startswith(shared)
    )


def head_weights(config: Config) -> int:
    """Number of weights of the head."""
    return config.vocab_size * config.embedding_length


def attention_operations(config: Config, lengths: Sequence[int]) -> int:
    """Attention operations of all layers; `lengths` holds the number of attended positions of each token."""
    return sum(
        2 * layer.head_count * (layer.key_length + layer.value_length) * _positions(layer, lengths)
        for layer in map(attention_of, config.layers)
        if layer is not None
    )


def cache_bytes_read(config: Config, types: CacheTypes, lengths: Sequence[int]) -> float:
    """Bytes of the states that a decode step reads, on average over steps.

    lengths: attended positions of each step. Layers with a sliding window read at most the window. Recurrent layers
    read and write a state of the same size at every position.
    """
    total = sum(position_bytes(layer, types) * _positions(attention_of(layer), lengths) for layer in config.layers)
    recurrent = sum(state_bytes(layer, 1, types) for layer in config.layers if layer.is_recurrent)
    return total / max(len(lengths), 1) + 2 * recurrent


def _positions(layer: Attention | None, lengths: Sequence[int]) -> int:
    """Attended positions of a layer, summed over tokens."""
    window = 0 if layer is None else layer.sliding_window
    return sum(min(n, window) for n in lengths) if window else sum(lengths)


def _used(name: str, config: Config) -> int:
    return config.expert_used_count if _is_expert(name) else 1


def _stored(name: str, config: Config) -> int:
    return config.expert_count if _is_expert(name) else 1


def _is_expert(name: str) -> bool:
    return "_exps." in name
