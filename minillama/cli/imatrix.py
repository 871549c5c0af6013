"""`minillama imatrix`: measure the importance of weight columns (llama.cpp: llama-imatrix).

`minillama quantize --imatrix` reads the file.
"""

import argparse
import sys
from pathlib import Path

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.ignored_options import add_ignored_options
from minillama.cli.arguments.model_from_args import open_model
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.perplexity_options import OUTPUT, TEXT, UNUSED
from minillama.cli.arguments.prompt_text import read_text
from minillama.cli.arguments.values import integer, integer_in
from minillama.cli.output.output_file import check_output_file
from minillama.cli.output.terminal import note

_OPTIONS = (
    Option(("-o", "--output", "--output-file"), "the file to write (default: imatrix.gguf)", str, "imatrix.gguf",
           value="FILE"),
    Option(("-c", "--ctx-size"), "tokens per chunk (default: 512)", integer_in(1), 512, "LLAMA_ARG_CTX_SIZE"),
    Option(("--chunks",), "maximum number of chunks; -1: all (default: -1)", integer, -1),
    Option(("--from-chunk", "--chunk"), "chunks to skip (default: 0)", integer_in(0), 0),
    Option(("--process-output",), "include output.weight", None, False),
    Option(("--parse-special",), "parse special tokens in the text", None, False),
    Option(("--force",), "overwrite the output file", None, False),
)  # fmt: skip
_BATCH = tuple(option for option in llama_options.CONTEXT if option.dest in ("batch_size", "ubatch_size"))


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("imatrix", help="measure the importance matrix for quantize", description=__doc__)
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "text to measure on, similar to the later use of the model", TEXT)
    add_options(parser, "chunks and output", _OPTIONS)
    add_options(parser, "machine", llama_options.DEVICE + _BATCH + llama_options.CACHE)
    add_options(parser, "devices", llama_options.MULTI_DEVICE)
    add_options(parser, "messages", OUTPUT)
    add_ignored_options(parser, "imatrix", *UNUSED)


def run(args: argparse.Namespace) -> int:
    target = Path(args.output)
    check_output_file(target, force=args.force, option="with -o")
    text = read_text(args).decode("utf-8", errors="replace")
    llm = open_model(args)
    from tqdm import tqdm

    from minillama.gguf.imatrix_file import write_imatrix
    from minillama.measure.quality.imatrix import split_chunks, sums_of_squares

    ids = llm.tokenizer.encode(text, parse_special=args.parse_special)
    most = None if args.chunks < 0 else args.chunks
    chunks = split_chunks(llm, ids, args.ctx_size, first=args.from_chunk, most=most)
    note(f"computing over {len(chunks)} chunks of {args.ctx_size} tokens")
    with tqdm(total=len(chunks), unit="chunk", file=sys.stderr, leave=False, disable=None) as bar:
        sums = sums_of_squares(llm, chunks, head=args.process_output, progress=bar.update)
    dataset = args.file or args.binary_file or ""
    write_imatrix(target, sums, chunks.size, dataset=dataset, chunks=len(chunks), chunk_size=args.ctx_size)
    print(target)
    return 0
