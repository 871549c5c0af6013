"""`minillama inspect`: metadata, tensors and sizes of a GGUF file, without running it."""

import argparse
import json
import os
from typing import TYPE_CHECKING

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.model_from_args import find_model
from minillama.cli.arguments.option import add_options
from minillama.engine.load_options import LoadOptions
from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.measure.tables import plain_table
from minillama.printable_text import printable, printable_line

if TYPE_CHECKING:
    import numpy as np

    from minillama.gguf import GGUF
    from minillama.gguf.kv_cache_types import CacheTypes
    from minillama.model import Config

DESCRIPTION = """\
Show the metadata, tensors and sizes of a GGUF file, and the memory that the model needs. With --metadata or --tensors
show only these. Nothing is computed and no weights are read.
"""
SHOWN_CHARACTERS, SHOWN_ELEMENTS, SHOWN_NAME = 72, 6, 120
CONTEXTS = (2048, 8192)  # in addition to the model's own

Row = tuple[str, ...]
Scalar = bool | int | float | str | None


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("inspect", help="show the contents of a GGUF file", description=DESCRIPTION)
    parser.add_argument("file", nargs="?", metavar="FILE", help="the GGUF file, in place of -m")
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "memory", llama_options.CACHE)
    group = parser.add_argument_group("output")
    group.add_argument("--metadata", action="store_true", help="only the metadata")
    group.add_argument("--tensors", action="store_true", help="only the tensors")
    group.add_argument("--json", action="store_true", help="everything, including whole arrays, as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.file is not None:
        if args.model not in (None, os.environ.get("LLAMA_ARG_MODEL")) or args.hf_repo not in (
            None,
            os.environ.get("LLAMA_ARG_HF_REPO"),
        ):
            raise OptionError(f"both a file ({args.file}) and -m or -hf are given; leave one out")
        args.model, args.hf_repo = args.file, None
    path = find_model(args)

    from minillama.gguf import open_gguf
    from minillama.gguf.kv_cache_types import read_cache_types

    types = read_cache_types(args.cache_type_k, args.cache_type_v)
    with open_gguf(path) as file:
        everything = not (args.metadata or args.tensors)
        config, reason = _config(file) if everything or args.json else (None, "")
        if args.json:
            metadata, tensors = args.metadata or everything, args.tensors or everything
            print(json.dumps(_as_json(file, config, types, metadata, tensors), indent=1))
            return 0
        sections = []
        if everything:
            lines = [*_summary(file), f"cache   {_cache_text(config, types) if config else f'unknown: {reason}'}"]
            sections.append("\n".join(map(printable_line, lines)))
        if args.metadata or everything:
            sections.append(plain_table(("metadata", "type", "value"), _metadata_rows(file)))
        if args.tensors or everything:
            sections.append(plain_table(("tensor", "shape", "type", "size"), _tensor_rows(file), right=(3,)))
        if everything:
            sections.append(
                plain_table(("type", "tensors", "weights", "size", "share"), _type_rows(file), right=(1, 2, 3, 4))
            )
            sections.append(
                plain_table(
                    ("context", "weights", f"{types} KV cache", "together"),
                    _memory_rows(file, config, types) if config else [],
                    right=(0, 1, 2, 3),
                )
            )
    print("\n\n".join(section for section in sections if section))
    return 0


def _summary(file: "GGUF") -> list[str]:
    from minillama.gguf.display_names import format_bytes, format_parameters, model_type

    bits = f"{8 * file.nbytes / file.parameters:.2f} bits per weight" if file.parameters else "a vocabulary only"
    many = f", {len(file.mapped)} files" if len(file.mapped) > 1 else ""
    size = (
        f"{format_bytes(file.nbytes)} in {len(file.tensors)} tensors, {format_parameters(file.parameters)} parameters"
    )
    return [
        f"file    {file.path} (GGUF version {file.version}{many})",
        f"model   {model_type(file)}",
        f"name    {file.metadata.get('general.name', 'none')}",
        f"size    {size}, {bits}",
    ]


def _config(file: "GGUF") -> "tuple[Config | None, str]":
    """The configuration, or None and the reason."""
    from minillama.model import read_config

    if "token_embd.weight" not in file.tensors:
        return None, "the file has no token_embd.weight"
    try:
        return read_config(file.metadata, file.tensors["token_embd.weight"].shape[0]), ""
    except (FormatError, UnsupportedError) as error:
        return None, str(error)


def _cache_text(config: "Config", types: "CacheTypes") -> str:
    """Bytes that a token adds to the states, and bytes that do not grow."""
    from minillama.gguf.display_names import format_bytes
    from minillama.model.state_sizes import state_growth

    found = state_growth(config, types, LoadOptions.ubatch_size)
    growing, windows = _layers(found.growing_layers), _layers(found.window_layers)
    parts = [f"{found.per_token} bytes a token in {growing}"] if found.growing_layers else []
    parts += [f"at most {format_bytes(found.windows)} in {windows} with a sliding window"] if found.windows else []
    if found.recurrent:
        parts += [f"always {format_bytes(found.recurrent)} in {_layers(found.recurrent_layers)} with a recurrent state"]
    return f"{types}: {', '.join(parts) or 'nothing'}"


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _metadata_rows(file: "GGUF") -> list[Row]:
    return [(printable_line(key, SHOWN_NAME), file.kinds[key], _shown(value)) for key, value in file.metadata.items()]


def _tensor_rows(file: "GGUF") -> list[Row]:
    from minillama.gguf.display_names import format_bytes

    return [
        (
            printable_line(tensor.name, SHOWN_NAME),
            " x ".join(map(str, tensor.shape)),
            tensor.type.name,
            format_bytes(tensor.nbytes),
        )
        for tensor in file.tensors.values()
    ]


def _type_rows(file: "GGUF") -> list[Row]:
    """Totals of each tensor type, the largest first."""
    from minillama.gguf.display_names import format_bytes, format_parameters

    by_type = {
        kind: [t for t in file.tensors.values() if t.type is kind] for kind in {t.type for t in file.tensors.values()}
    }
    rows = []
    for kind, tensors in sorted(by_type.items(), key=lambda item: -sum(tensor.nbytes for tensor in item[1])):
        size = sum(tensor.nbytes for tensor in tensors)
        weights = sum(tensor.size for tensor in tensors)
        share = f"{100 * size / file.nbytes:.1f} %"
        rows.append((kind.name, str(len(tensors)), format_parameters(weights), format_bytes(size), share))
    return rows


def _memory_rows(file: "GGUF", config: "Config", types: "CacheTypes") -> list[Row]:
    """Weights and states of all layers at some context sizes, up to the trained one."""
    from minillama.gguf.display_names import format_bytes
    from minillama.model import cache_bytes

    trained, rows = config.context_length, []
    for context in [context for context in CONTEXTS if context < trained] + [trained]:
        cache = cache_bytes(config, context, types, chunk=LoadOptions.ubatch_size)
        rows.append((str(context), *map(format_bytes, (file.nbytes, cache, file.nbytes + cache))))
    return rows


def _as_json(
    file: "GGUF", config: "Config | None", types: "CacheTypes", metadata: bool, tensors: bool
) -> dict[str, object]:
    from minillama.gguf.display_names import model_type
    from minillama.model.state_sizes import state_growth

    growth = None if config is None else state_growth(config, types, LoadOptions.ubatch_size)
    found: dict[str, object] = {
        "path": str(file.path),
        "version": file.version,
        "model_type": model_type(file),
        "parameters": file.parameters,
        "nbytes": file.nbytes,
        "cache_type_k": types.keys.value,
        "cache_type_v": types.values.value,
        "cache_bytes_per_token": None if growth is None else growth.per_token,
        "cache_bytes_windows": None if growth is None else growth.windows,
        "cache_bytes_recurrent": None if growth is None else growth.recurrent,
    }
    if metadata:
        found["metadata"] = {key: _plain(value) for key, value in file.metadata.items()}
    if tensors:
        found["tensors"] = [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "type": tensor.type.name,
                "nbytes": tensor.nbytes,
                "offset": tensor.offset,
                "file": str(tensor.file),
            }
            for tensor in file.tensors.values()
        ]
    return found


def _plain(value: "Scalar | tuple[str, ...] | np.ndarray") -> Scalar | list[Scalar]:
    """A metadata value for JSON; NaN and infinity become null."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return [_plain(element) for element in value.tolist()]


def _shown(value: "Scalar | tuple[str, ...] | np.ndarray") -> str:
    """A value for a table; long texts and arrays are abbreviated."""
    if isinstance(value, str):
        long = len(value) > SHOWN_CHARACTERS
        return printable(value[:SHOWN_CHARACTERS]) + (f"... {len(value)} characters" if long else "")
    if value is None or isinstance(value, (bool, int, float)):
        return f"{value:.7g}" if isinstance(value, float) else str(value)
    first = [repr(element) if isinstance(element, str) else str(element) for element in value[:SHOWN_ELEMENTS]]
    rest = f", ... {len(value)} in all" if len(value) > SHOWN_ELEMENTS else ""
    return printable_line(f"[{', '.join(first)}{rest}]")
