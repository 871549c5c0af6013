"""Name, authors, licence and size of a model (`general.*`), from its folder."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import gguf

from minillama.convert.folder.json_files import read_json_if_there
from minillama.errors import FormatError
from minillama.gguf.header_writer import TensorSpec


def read_card(folder: Path, name: str | None, tensors: Sequence[TensorSpec]) -> gguf.Metadata:
    """Read README.md and JSON files with the package `gguf`, as llama.cpp's converter does.

    name: the model's name, in place of the one that the folder gives. Raises FormatError.
    """
    total, shared, expert, experts = parameter_counts(tensors)
    logging.getLogger("metadata").setLevel(logging.ERROR)
    try:
        card = gguf.Metadata.load(None, folder, name, total)
    except Exception as error:  # PyYAML has many kinds
        raise FormatError(f"the model card {folder / 'README.md'} cannot be read ({error}); remove it") from error
    if card.sampling_penalty_repeat is None:  # versions of the package until 0.19 leave it out
        card.sampling_penalty_repeat = read_json_if_there(folder / "generation_config.json").get("repetition_penalty")
    if card.name is None:
        card.name = folder.resolve().name
    if card.size_label is None and total > 0:
        card.size_label = gguf.size_label(total, shared, expert, experts)
    return card


def parameter_counts(tensors: Sequence[TensorSpec]) -> tuple[int, int, int, int]:
    """Parameters in all, outside experts, of one expert, and the number of experts."""
    total = shared = expert = experts = stacks = 0
    for tensor in tensors:
        size = math.prod(tensor.shape)
        total += size
        if "_exps." in tensor.name and len(tensor.shape) > 2:
            count = tensor.shape[-2 if ".bias" in tensor.name else -3]
            expert += size // count
            experts += count
            stacks += 1
        else:
            shared += size
    return total, shared, expert, experts // stacks if stacks else 0
