"""`minillama imatrix`: measure the importance of weight columns (llama.cpp: llama-imatrix).

`minillama quantize --imatrix` reads the file.
"""

import argparse
import os
import sys
from pathlib import Path

from minillama.atomic_file import check_target
from minillama.cli.arguments import llama_options
from minillama.cli.arguments.llama_options import Option
from minillama.cli.arguments.model_from_args import find_model, prepare_machine
from minillama.cli.arguments.prompt_text import read_file
from minillama.cli.output.terminal import note
from minillama.errors import OptionError

_OPTIONS = (
    Option(("-f", "--file"), "text to measure on, similar to the later use of the model", value="FILE"),
    Option(("-o", "--output", "--output-file"), "the file to write (default: imatrix.gguf)", str, "imatrix.gguf",
           value="FILE"),
    Option(("-c", "--ctx-size"), "tokens per chunk (default: 512)", int, 512),
    Option(("--chunks", "--chunk"), "maximum number of chunks; -1: all (default: -1)", int, -1),
    Option(("--from-chunk",), "chunks to skip (default: 0)", int, 0),
    Option(("--process-output",), "include output.weight", None, False),
    Option(("--parse-special",), "parse special tokens in the text", None, False),
    Option(("--no-ppl",), "ignored: perplexity is not computed here", None, False),
    Option(("--force",), "overwrite the output file", None, False),
)  # fmt: skip

_MACHINE = ("-t", "-tb", "-ngl", "-dev")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("imatrix", help="measure the importance matrix for quantize", description=__doc__)
    llama_options.add_options(parser, "model", llama_options.MODEL)
    llama_options.add_options(parser, "text and output", _OPTIONS)
    llama_options.add_options(
        parser, "machine", [option for option in llama_options.DEVICE if option.names[0] in _MACHINE]
    )


def run(args: argparse.Namespace) -> int:
    target = Path(args.output)
    if args.file is None:
        raise OptionError("no text to measure on; name one with -f")
    check_target(target)
    if os.path.lexists(target) and not args.force:
        raise OptionError(f"{target} exists; overwrite it with --force, or name another file with -o")
    text = read_file(args.file, final_newline=True)
    prepare_machine(args.device, args.threads, args.threads_batch)
    from tqdm import tqdm

    from minillama.engine.load import load
    from minillama.gguf.imatrix_file import write_imatrix
    from minillama.measure.quality.imatrix import split_chunks, sums_of_squares

    llm = load(find_model(args), n_gpu_layers=args.gpu_layers, progress=sys.stderr.isatty())
    ids = llm.tokenizer.encode(text, parse_special=args.parse_special)
    most = None if args.chunks < 0 else args.chunks
    chunks = split_chunks(llm, ids, args.ctx_size, first=args.from_chunk, most=most)
    note(f"computing over {len(chunks)} chunks of {args.ctx_size} tokens")
    with tqdm(total=len(chunks), unit="chunk", file=sys.stderr, leave=False, disable=None) as bar:
        sums = sums_of_squares(llm, chunks, head=args.process_output, progress=bar.update)
    write_imatrix(target, sums, chunks.size, dataset=args.file, chunks=len(chunks), chunk_size=args.ctx_size)
    print(target)
    return 0
