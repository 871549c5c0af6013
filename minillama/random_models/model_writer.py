"""Write a model with random weights in the shape of a real one."""

import contextlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np

from minillama.atomic_file import atomic_write, check_room
from minillama.gguf.header_parser import DEFAULT_ALIGNMENT
from minillama.gguf.header_writer import METADATA_ROOM, TensorSpec, padded_size
from minillama.gguf.quantisation_mixes import Mix, ModelTraits, tensor_type
from minillama.gguf.types import BLOCKS, TensorType
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_shape import ModelShape, Value
from minillama.random_models.random_blocks import Blocks, random_blocks
from minillama.random_models.random_vectors import is_vector, random_vector
from minillama.random_models.vocabularies.random_vocabulary import UNKNOWN, random_tokens

Progress = Callable[[int, int], None]  # (bytes written, bytes in all)

# Primes: rows of a matrix start at different positions of a pool with a prime number of blocks. So no two rows of the
# output head are equal and no two tokens tie. The pool must have more blocks than the matrix has rows.
POOL_SIZES = (4099, 32771, 262147)


def tensor_specs(shape: ModelShape, mix: Mix) -> list[TensorSpec]:
    """Specifications of all tensors of the file, in order."""
    important = mix.name.startswith("IQ3_")  # published files of these mixes are made with an importance matrix
    config = shape.config
    traits = ModelTraits(
        shape.layers, shape.heads, shape.kv_heads, shape.tied, experts=config.expert_count, important=important
    )
    return [TensorSpec(name, sizes, tensor_type(mix, name, sizes, traits)) for name, sizes in shape.tensors()]


def write_random_model(
    path: str | Path, shape: str | ModelShape, file_type: str, *, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Write a GGUF file that llama.cpp loads, with random weights of standard deviation 1/sqrt(row length).

    `shape` is a name of `SHAPES` or a ModelShape; `file_type` is a name of llama-quantize, such as `Q4_K_M`. The same
    seed gives the same bytes. An existing file is replaced at the end.
    Raises OptionError (unknown names) and ResourceError (no room, not writable).
    """
    path = Path(path)
    shape = shape_named(shape) if isinstance(shape, str) else shape
    mix = Mix.named(file_type)
    planned = tensor_specs(shape, mix)
    total = sum(padded_size(tensor.nbytes) for tensor in planned)
    check_room(path, total, METADATA_ROOM)
    rng = np.random.default_rng(seed)
    with atomic_write(path) as file:
        _write_header(Path(file.name), shape, mix, planned, rng)
        file.write(b"\0" * (-file.seek(0, os.SEEK_END) % DEFAULT_ALIGNMENT))
        _write_weights(file, shape, planned, rng, lambda done: progress(done, total) if progress else None)
        _drop_page_cache(file)
    return path


def _drop_page_cache(file: BinaryIO) -> None:
    """Drop the pages of a file that was just written from Linux's page cache.

    These are small pages. Pages read through a memory map are huge pages, which make decoding faster. The reader
    requests huge pages, but pages that are already in memory stay small.
    """
    if sys.platform == "linux":
        file.flush()
        with contextlib.suppress(OSError):  # the file is valid without this
            os.fsync(file.fileno())  # pages that are not written yet would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _write_header(path: Path, shape: ModelShape, mix: Mix, planned: list[TensorSpec], rng: np.random.Generator) -> None:
    writer = gguf.GGUFWriter(path, shape.architecture)
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(f"{shape.title} (random weights)")
        writer.add_size_label(shape.size_label)
        writer.add_file_type(mix.file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in shape.metadata.items():
            _add_value(writer, f"{shape.architecture}.{key}", value)
        _add_vocabulary(writer, shape, rng)
        for tensor in planned:
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, raw_dtype=tensor.type
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_value(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter, shape: ModelShape, rng: np.random.Generator) -> None:
    vocabulary = shape.vocabulary
    tokens = random_tokens(vocabulary, rng)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre or "default")
    writer.add_token_list(tokens.texts)
    writer.add_token_types(tokens.types)
    if vocabulary.pre is None:
        writer.add_token_scores(tokens.scores)
        writer.add_unk_token_id(tokens.types.index(UNKNOWN))
    else:
        writer.add_token_merges(tokens.merges)
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    if vocabulary.padding is not None:
        writer.add_pad_token_id(vocabulary.padding)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _write_weights(
    file: BinaryIO,
    shape: ModelShape,
    planned: list[TensorSpec],
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> None:
    pools: dict[tuple[TensorType, int, int], memoryview] = {}
    done = 0
    for tensor in planned:
        if tensor.name == "rope_freqs.weight" and shape.rope_factors is not None:
            file.write(shape.rope_factors.values(2 * tensor.shape[0], shape.rope_base).tobytes())
        elif is_vector(tensor.name, tensor.shape):
            file.write(random_vector(tensor.name, tensor.shape, rng).tobytes())
        else:
            rows = math.prod(tensor.shape[:-1])
            count = next((size for size in POOL_SIZES if size > rows), POOL_SIZES[-1])
            key = (tensor.type, tensor.shape[-1], count)
            if key not in pools:
                pools[key] = _pool(random_blocks(tensor.type, count, tensor.shape[-1] ** -0.5, rng))
            _write_from_pool(file, pools[key], int(rng.integers(count)) * BLOCKS[tensor.type][1], tensor.nbytes)
        file.write(b"\0" * (padded_size(tensor.nbytes) - tensor.nbytes))
        done += padded_size(tensor.nbytes)
        progress(done)


def _pool(blocks: Blocks) -> memoryview:
    return memoryview(np.ascontiguousarray(blocks).reshape(-1))


def _write_from_pool(file: BinaryIO, pool: memoryview, start: int, count: int) -> None:
    """Write `count` bytes of the pool from `start`, wrapping around."""
    while count:
        part = pool[start : start + count]
        file.write(part)
        count -= len(part)
        start = 0
