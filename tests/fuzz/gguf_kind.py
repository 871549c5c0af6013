"""Model files: everything that loading does, without compiling programs."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from gguf import GGMLQuantizationType as Type
from tiny_models import VARIANTS, write_tiny
from vocabularies import MERGES, bpe_metadata

from minillama.engine.batches import Batches
from minillama.engine.loading.load_params import config_of, load_params, unused_tensors
from minillama.engine.loading.memory_budget import choose_context, predict
from minillama.gguf import GGUF, dequantize, open_gguf
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.kernels import SUPPORTED, reads_in_place
from minillama.model import Config, Params, empty_cache
from minillama.model.forward import forward
from minillama.tokenizer import load_chat_template, load_tokenizer
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.gguf_mutations import mutate
from tests.fuzz.gguf_parts import Parts, Value, copy, parse, typed_value
from tests.fuzz.header_check import check_rewritten
from tests.fuzz.tokenizer_check import check_tokenizer

QUANTISED = (("llama", Type.Q4_0), ("qwen3", Type.Q8_0), ("llama", Type.Q5_1))
TRACED = 0.004  # of the loaded files: the forward pass is traced, which takes a second and fills caches of JAX
SHARDED = 0.05  # of all files: two files of a split model


@dataclass(frozen=True)
class Files:
    """The files of a case by name; the first one is opened."""

    content: Mapping[str, bytes]
    is_traced: bool
    is_decoded: bool


class GGUFKind(Kind[Files]):
    """Damaged model files of every family."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._device = jax.devices("cpu")[0]
        for kind in SUPPORTED:  # a kernel is compiled at its first use
            reads_in_place(self._device, kind)
        seeds = [(name, Type.F32) for name in VARIANTS] + list(QUANTISED)
        self._seeds = []
        for name, kind in seeds:
            path = write_tiny(folder / "seed.gguf", name, kind)
            self._seeds.append(parse(path))
            path.unlink()
        self._byte_pairs = [
            (key.encode(), typed_value(value)) for key, value in bpe_metadata(MERGES, pre="llama-bpe").items()
        ]

    def make(self, rng: random.Random) -> Files:
        parts = copy(rng.choice(self._seeds))
        if rng.random() < 0.3:
            for key, value in self._byte_pairs:
                parts.set(key, value)
        if rng.random() < 0.98:
            mutate(rng, parts)
        files = _split(rng, parts) if rng.random() < SHARDED else {"model.gguf": parts.to_bytes()}
        return Files(files, rng.random() < TRACED, rng.random() < 0.1)

    def run(self, given: Files) -> str:
        paths = [self.folder / name for name in given.content]
        try:
            for path, content in zip(paths, given.content.values(), strict=True):
                path.write_bytes(content)
            return self._load(paths[0], given)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def files(self, given: Files) -> dict[str, bytes]:
        return dict(given.content)

    def _load(self, path: Path, given: Files) -> str:
        file = open_gguf(path)
        check_rewritten(given.content[path.name], str(path))
        if given.is_decoded:
            for tensor in file.tensors.values():
                dequantize(tensor)
        config = config_of(file)
        ctx_size = self._check_memory(file, config)
        tokenizer = load_tokenizer(file.metadata)
        check_tokenizer(tokenizer, file.metadata)
        load_chat_template(file.metadata)
        unused_tensors(file, config)
        params = load_params(file, config, ctx_size, [self._device] * (config.block_count + 1))
        _check_shapes(params, config)
        if given.is_traced:
            self._trace(params, config)
            return "traced"
        return "loaded"

    def _check_memory(self, file: GGUF, config: Config) -> int:
        types, batches = CacheTypes(), Batches(2048, 512)
        memory = predict(config, file.nbytes, config.context_length, types, batches, self._device)
        for name in ("weights", "cache", "compute"):
            number = getattr(memory, name)
            if not isinstance(number, int) or number < 0:
                raise Finding(f"predicted {name}: {number!r}")
        return choose_context(config, file.nbytes, 0, types, batches, self._device)[0]

    def _trace(self, params: Params, config: Config) -> None:
        """Trace a step: what loads has the shapes that the program takes."""
        cache = jax.eval_shape(lambda: empty_cache(config, 256, CacheTypes()))
        ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        out, _ = jax.eval_shape(lambda params, ids, cache: forward(params, config, ids, cache), params, ids, cache)
        jax.clear_caches()  # of traces, which would look like a leak
        if out.shape != (1, 4, config.embedding_length):
            raise Finding(f"hidden states of shape {out.shape}")


def _check_shapes(params: Params, config: Config) -> None:
    if params.token_embd.shape != (config.vocab_size, config.embedding_length):
        raise Finding(f"token_embd has the shape {params.token_embd.shape}")
    if len(params.blocks) != config.block_count:
        raise Finding(f"{len(params.blocks)} blocks of {config.block_count}")


def _split(rng: random.Random, parts: Parts) -> dict[str, bytes]:
    """Two files, with right or wrong numbers."""
    half = rng.randrange(len(parts.tensors) + 1)
    first, second = copy(parts), Parts([], parts.tensors[half:], parts.alignment)
    first.tensors = parts.tensors[:half]
    first.edits, first.length = parts.edits, parts.length
    count = rng.choice((2, 2, 2, 2, 3, 1))
    for number, part in enumerate((first, second)):
        if part.find(b"split.count") is None:
            part.set(b"split.count", Value(2, count))
        part.set(b"split.no", Value(2, number if rng.random() < 0.9 else rng.randrange(4)))
    if rng.random() < 0.5:
        first.set(b"split.tensors.count", Value(5, len(parts.tensors) + rng.choice((0, 0, 0, 1))))
    named = partial("model-{:05}-of-00002.gguf".format)
    found = {named(1): first.to_bytes(), named(2): second.to_bytes()}
    if rng.random() < 0.1:
        found.pop(named(2))
    return found


KIND = GGUFKind
