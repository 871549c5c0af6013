"""`minillama quantize`: quantise the weights of a model (llama.cpp: llama-quantize)."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.cli.arguments.option import Option, OtherOption, add_options, add_other_options
from minillama.cli.arguments.parser import shown_value
from minillama.cli.arguments.prompt_text import read_file
from minillama.cli.arguments.values import integer_in
from minillama.cli.output.output_file import check_output_file
from minillama.cli.output.terminal import note
from minillama.errors import OptionError
from minillama.printable_text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from minillama.gguf import TensorType
    from minillama.gguf.imatrix_file import ImportanceMatrix
    from minillama.gguf.quantisation_mixes import Mix
    from minillama.gguf.quantise import MetadataOverride, Progress, QuantiseOptions, QuantisePlan, QuantiseStep

DESCRIPTION = """\
Write a model with quantised matrices, byte for byte as llama-quantize does. Quantise from F32, F16 or BF16. The default
output file is ggml-model-TYPE.gguf in the folder of the input file.

types, with bits per weight:
  F32 32   F16 16   BF16 16   Q8_0 8.5   Q6_K 6.6   Q5_K_M 5.7   Q5_K_S 5.5   Q5_1 6.0   Q5_0 5.5   Q4_K_M 4.9
  Q4_K_S 4.6   Q4_1 5.0   Q4_0 4.5   IQ4_NL 4.5   IQ4_XS 4.3   Q3_K_L 4.3   Q3_K_M 3.9   Q3_K_S 3.5   Q2_K 3.2
  COPY: keep every tensor; Q3_K, Q4_K and Q5_K mean Q3_K_M, Q4_K_M and Q5_K_M
"""

_OPTIONS = (
    Option(("--force",), "overwrite the output file", None, False),
    Option(("--dry-run",), "show types and sizes, write nothing", None, False),
    Option(("--allow-requantize",), "quantise tensors that are already quantised; costs quality", None, False),
    Option(("--leave-output-tensor",), "do not quantise output.weight", None, False),
    Option(("--pure",), "the same type for every matrix", None, False),
    Option(("--imatrix",), "importance matrix file of llama-imatrix", value="FILE"),
    Option(("--include-weights",), "use the imatrix only for tensors with this text in their name; may be repeated",
           str, value="TEXT", repeated=True),
    Option(("--exclude-weights",), "do not use the imatrix for tensors with this text in their name; may be repeated",
           str, value="TEXT", repeated=True),
    Option(("--output-tensor-type",), "type of output.weight", value="TYPE"),
    Option(("--token-embedding-type",), "type of the token embeddings", value="TYPE"),
    Option(("--tensor-type",), "type of tensors whose name matches a regular expression, as in attn_v=q8_0; "
           "may be repeated, the first match counts", str, value="REGEX=TYPE", repeated=True),
    Option(("--tensor-type-file",), "file of such pairs, separated by white space", value="FILE"),
    Option(("--override-kv",), "set a metadata key; TYPE is int, float, bool or str; may be repeated", str,
           value="KEY=TYPE:VALUE", repeated=True),
)  # fmt: skip
_OTHERS = (
    OtherOption("--keep-split", None, "the output is a single file; leave it out", refused=True),
    OtherOption("--prune-layers", str, "layers are not removed; leave it out", refused=True),
    OtherOption("--max-buffer-size", integer_in(1), "memory is a few MB per thread"),
)  # fmt: skip

_KINDS = {"int": "u32", "float": "f32", "bool": "bool", "str": "string"}
_MAX_BYTES = 127  # of a key and of a value


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("quantize", help="quantise a model", description=DESCRIPTION, usage=_USAGE)
    parser.add_argument(
        "words", metavar="IN [OUT] TYPE [THREADS]", nargs="*", help="input file, output file, type, and threads"
    )
    add_options(parser, "how", _OPTIONS)
    add_other_options(parser, _OTHERS)
    parser.set_defaults(run=run)


_USAGE = "minillama quantize [options] IN.gguf [OUT.gguf] TYPE [THREADS]"


def run(args: argparse.Namespace) -> int:
    source, target, mix, threads = _words(args.words)
    if not args.dry_run:
        check_output_file(target, force=args.force)
    chosen = _options(args, threads)
    from minillama.gguf import open_gguf
    from minillama.gguf.quantise import plan_file, quantise_file

    label = mix.name if mix else "COPY"
    plan = plan_file(open_gguf(source), mix, chosen)
    if args.dry_run:
        note(f"calculating the size of {source} as {label}")
        for number, step in enumerate(plan.steps, 1):
            note(_line(step, number, len(plan.steps)))
        _summary(plan)
        return 0
    note(f"quantizing {source} to {target} as {label}")
    from tqdm import tqdm

    with tqdm(
        total=plan.parameters, unit=" weights", unit_scale=True, file=sys.stderr, leave=False, disable=None
    ) as bar:
        quantise_file(source, target, mix, chosen, _show(bar, len(plan.steps), chosen.importance))
    _summary(plan)
    print(target)
    return 0


def _words(words: list[str]) -> "tuple[Path, Path, Mix | None, int | None]":
    """Parse IN [OUT] TYPE [THREADS]; the output file may be missing."""
    if len(words) < 2:
        raise OptionError(f"usage: {_USAGE}; see minillama quantize --help")
    source, rest = Path(words[0]), words[1:]
    known, mix = _mix(rest[0])
    target = None
    if not known:
        target, rest = Path(rest[0]), rest[1:]
        if not rest:
            raise OptionError(f"{target} is no type, and no type follows it; usage: {_USAGE}")
        known, mix = _mix(rest[0])
        if not known:
            from minillama.gguf.quantisation_mixes import Mix

            Mix.named(rest[0])  # raises, with the known ones
    try:
        (threads,) = map(integer_in(1), rest[1:]) if len(rest) > 1 else (None,)
    except (ValueError, argparse.ArgumentTypeError):
        raise OptionError(f"{' '.join(rest[1:])}: only a number of threads may follow the type") from None
    target = target or source.with_name(f"ggml-model-{mix.name if mix else 'COPY'}.gguf")
    return source, target, mix, threads


def _mix(word: str) -> "tuple[bool, Mix | None]":
    """Parse a type by name or number: whether it is one, and its mix (None for COPY)."""
    from minillama.gguf.quantisation_mixes import ALIASES, ALL_MIX_NAMES, MIX_NAMES, Mix

    if word.upper() == "COPY":
        return True, None
    if word.upper() in ALL_MIX_NAMES and word.upper() not in MIX_NAMES:
        raise OptionError(f"cannot quantise to {word}: its types are only read; known: {', '.join(MIX_NAMES)}")
    if word.upper() in (*MIX_NAMES, *ALIASES):
        return True, Mix.named(word)
    mixes = {str(int(mix.file_type)): mix for mix in map(Mix.named, MIX_NAMES)}
    return word in mixes, mixes.get(word)


def _options(args: argparse.Namespace, threads: int | None) -> "QuantiseOptions":
    from minillama.gguf.quantise import QuantiseOptions

    pairs = list(args.tensor_type or ())
    if args.tensor_type_file:
        pairs += read_file(args.tensor_type_file).split()
    return QuantiseOptions(
        allow_requantize=args.allow_requantize,
        leave_output_tensor=args.leave_output_tensor,
        pure=args.pure,
        output_tensor_type=_type(args.output_tensor_type, "--output-tensor-type"),
        token_embedding_type=_type(args.token_embedding_type, "--token-embedding-type"),
        tensor_types=tuple(_pair(pair) for pair in pairs),
        overrides=tuple(_override(text) for text in args.override_kv or ()),
        importance=_importance(args),
        threads=threads,
    )


def _type(word: str | None, option: str) -> "TensorType | None":
    if word is None:
        return None
    from minillama.gguf.quantise import QUANTISERS

    found = next((kind for kind in QUANTISERS if kind.name == word.upper()), None)
    if found is None:
        raise OptionError(f"{option} {word}: no type to quantise to; known: {', '.join(k.name for k in QUANTISERS)}")
    return found


def _pair(text: str) -> "tuple[str, TensorType]":
    pattern, equals, word = text.partition("=")
    kind = _type(word, "--tensor-type") if word else None
    if not pattern or not equals or kind is None:
        raise OptionError(f"--tensor-type {text}: should be part of a name, =, and a type, as in attn_v=q8_0")
    return pattern.lower(), kind


def _override(text: str) -> "MetadataOverride":
    from minillama.gguf.quantise import MetadataOverride

    key, _, rest = text.partition("=")
    kind, colon, raw = rest.partition(":")
    try:
        size = max(len(key.encode()), len(raw.encode()))
    except UnicodeEncodeError:
        raise OptionError(f"--override-kv {shown_value(text)}: expected UTF-8") from None
    if not key or not colon or kind not in _KINDS or size > _MAX_BYTES:
        raise OptionError(
            f"--override-kv {text}: should be KEY=TYPE:VALUE with int, float, bool or str; key and value "
            f"of at most {_MAX_BYTES} bytes"
        )
    readers = {"int": _whole, "float": float, "bool": {"true": True, "false": False}.__getitem__, "str": str}
    try:
        value = readers[kind](raw)
    except (ValueError, KeyError):
        raise OptionError(f"--override-kv {text}: {raw or 'nothing'} is no value of type {kind}") from None
    return MetadataOverride(key, _KINDS[kind], value)


def _whole(text: str) -> int:
    number = abs(int(text))  # without its sign, as in llama.cpp
    if number >= 2**32:
        raise ValueError(text)
    return number


def _importance(args: argparse.Namespace) -> "ImportanceMatrix | None":
    include, exclude = tuple(args.include_weights or ()), tuple(args.exclude_weights or ())
    if not args.imatrix:
        if include or exclude:
            raise OptionError("--include-weights and --exclude-weights select from an --imatrix; name its file")
        return None
    from minillama.gguf.imatrix_file import read_imatrix

    found = read_imatrix(args.imatrix)
    note(f"{args.imatrix}: {len(found.entries)} importances, of {found.chunks} chunks of {', '.join(found.datasets)}")
    kept = found.filtered(include, exclude)
    return kept if kept.entries else None


def _show(bar: "tqdm", count: int, importance: "ImportanceMatrix | None") -> "Progress":
    """A progress callback that prints a line per tensor and updates the bar."""
    shown: list[QuantiseStep] = []

    def show(step: "QuantiseStep", weights: int) -> None:
        if not shown or shown[-1] is not step:
            shown.append(step)
            bar.write(_line(step, len(shown), count), file=sys.stderr)
            if importance and not step.copied and step.source.name not in importance.entries:
                name = printable(step.source.name)
                bar.write(f"{name} is not in the importance matrix and is quantised without it", file=sys.stderr)
        bar.update(weights)

    return show


def _line(step: "QuantiseStep", number: int, count: int) -> str:
    from minillama.gguf.header_writer import dimensions

    source, target = step.source, step.target
    sizes = dimensions(source.shape)
    shape = ", ".join(f"{size:6d}" for size in sizes + [1] * (4 - len(sizes)))
    start = f"[{number:4d}/{count:4d}] {printable(source.name):<36} - [{shape}], type = {_name(source.type):>6}, "
    if step.copied:
        return f"{start}size = {source.nbytes / 2**20:8.3f} MiB"
    narrow = ""
    if step.preferred is not target.type:
        narrow = f" (rows of {source.shape[-1]} are not blocks of {_name(step.preferred)})"
    sizes_text = f"{source.nbytes / 2**20:8.2f} MiB -> {target.nbytes / 2**20:8.2f} MiB"
    return f"{start}converting to {_name(target.type)} .. size = {sizes_text}{narrow}"


def _name(kind: "TensorType") -> str:
    """Type name as in ggml: q4_K, iq4_nl, f16."""
    return kind.name.lower().replace("_k", "_K")


def _summary(plan: "QuantisePlan") -> None:
    for label, size in (("model", plan.bytes_before), ("quant", plan.bytes_after)):
        note(f"{label} size  = {size / 2**20:8.2f} MiB ({8 * size / plan.parameters:.2f} BPW)")
    if plan.fallbacks:
        note(f"warning: {plan.fallbacks} of {len(plan.steps)} tensors have rows too narrow for their type")
