"""The storyteller with ballast: the same words from thirty times as many weights.

A draft model pays only where the model is large. No large model is on this machine, so each feed-forward layer gets
neurons whose outputs have weight zero. They are read and multiplied as all others are, and change no logit.
"""

from dataclasses import replace
from functools import cache as once
from pathlib import Path

import numpy as np

import minillama as ml
from minillama.atomic_file import atomic_write
from minillama.engine.llm import LLM
from minillama.engine.loading.model_files import data_file
from minillama.gguf import open_gguf
from minillama.gguf.header_writer import TensorSpec, alignment_of, header_bytes, padded_size
from minillama.gguf.reader import Tensor
from minillama.lab.experiments.quantised_storytellers import quantised, temporary_folder
from minillama.lab.lab_models import LabModel

WIDTH = 60  # times the neurons of the storyteller: 75 MB, more than a processor's cache
NEURONS = "llama.feed_forward_length"


@once
def heavy_storyteller(width: int = WIDTH) -> Path:
    """File of the storyteller with `width` times as many neurons.

    The added ones change nothing. It is made once per process, in a fraction of a second."""
    return heavy_file(width).path(temporary_folder())


def heavy_file(width: int = WIDTH) -> LabModel:
    """The file of `heavy_storyteller`."""
    return LabModel(f"heavy-storyteller-{width}.gguf", lambda path: _write_heavy(path, width))


def _write_heavy(path: Path, width: int) -> None:
    source = open_gguf(data_file("storyteller-q8_0.gguf"))
    metadata = {**source.metadata, NEURONS: width * source.require(NEURONS, int), "general.name": "Heavy storyteller"}
    tensors = [_widened(tensor, width) for tensor in source.tensors.values()]
    specs = [TensorSpec(tensor.name, tensor.shape, tensor.type) for tensor in tensors]
    alignment = alignment_of(metadata)
    with atomic_write(path) as file:
        file.write(header_bytes(metadata, source.kinds, specs))
        for tensor in tensors:
            file.write(tensor.data.tobytes())
            file.write(b"\0" * (padded_size(tensor.nbytes, alignment) - tensor.nbytes))


def _widened(tensor: Tensor, width: int) -> Tensor:
    """A matrix with copies of its neurons, whose outputs have weight zero."""
    rows, *columns = tensor.shape
    if ".ffn_gate." in tensor.name or ".ffn_up." in tensor.name:
        return replace(tensor, shape=(width * rows, *columns), data=np.tile(tensor.data, (width, 1)))
    if ".ffn_down." in tensor.name:
        silent = np.zeros((rows, (width - 1) * tensor.data.shape[1]), np.uint8)  # scales of zero
        return replace(tensor, shape=(rows, width * columns[0]), data=np.hstack([tensor.data, silent]))
    return tensor


@once
def load_heavy(draft: str | None = None) -> LLM:
    """The heavy storyteller, loaded once per process.

    draft: the type (`Q4_0`, ...) of the storyteller that is its draft model; None for no draft model.
    """
    guesses = None if draft is None else quantised(draft)
    return ml.load(heavy_storyteller(), model_draft=guesses, progress=False)
