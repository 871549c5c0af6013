"""`minillama tokenize`: token ids of a text and their pieces (llama.cpp: llama-tokenize)."""

import argparse
import sys
from typing import TYPE_CHECKING

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.ignored_options import WITH_MODEL, add_ignored_options
from minillama.cli.arguments.model_from_args import find_model
from minillama.cli.arguments.option import Option, add_options, without_effect
from minillama.cli.arguments.prompt_text import process_escapes, read_file, read_stdin
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.tokenizer import Tokenizer

_OPTIONS = (
    Option(("-p", "--prompt"), "the text", value="TEXT"),
    Option(("-f", "-bf", "--file", "--binary-file"), "file with the text", value="FILE"),
    Option(("--stdin",), "read the text from standard input", None, False),
    Option(("--ids",), "print only the ids, as in [1, 2, 3]", None, False),
    Option(("--no-bos",), "no BOS token, even if the model needs it", None, False),
    Option(("--no-parse-special",), "treat the text of special tokens as plain text", None, False),
    Option(("--show-count",), "print the number of tokens", None, False),
    Option(("-e", "--escape"), r"process escapes \n \t \" \\ \xHH (default: on)", None, True, off=("--no-escape",)),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("tokenize", help="show the tokens of a text", description=__doc__)
    add_options(parser, "model (only its vocabulary is read)", llama_options.MODEL)
    add_options(parser, "text and output", _OPTIONS)
    add_ignored_options(parser, "tokenize", *without_effect(WITH_MODEL, "only the vocabulary is used"))


def run(args: argparse.Namespace) -> int:
    text = _text(args)
    from minillama.gguf import open_gguf
    from minillama.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(open_gguf(find_model(args)).metadata)
    ids = tokenizer.encode(
        text, add_special=tokenizer.add_bos and not args.no_bos, parse_special=not args.no_parse_special
    )
    write = sys.stdout.buffer.write  # bytes, because one token may be a part of a character
    sys.stdout.flush()
    if args.ids:
        write(f"[{', '.join(map(str, ids))}]\n".encode())
    else:
        for token in ids:
            write(_line(tokenizer, token))
    if args.show_count:
        write(f"Total number of tokens: {len(ids)}\n".encode())
    sys.stdout.buffer.flush()
    return 0


def _line(tokenizer: "Tokenizer", token: int) -> bytes:
    return b"%6d -> '%s'\n" % (token, tokenizer.piece(token, special=True))


def _text(args: argparse.Namespace) -> str:
    """The text to tokenise, verbatim, including a last newline."""
    given = [
        name
        for name, value in (("-p", args.prompt), ("-f", args.file), ("--stdin", args.stdin or None))
        if value is not None
    ]
    if len(given) != 1:
        raise OptionError(f"give the text with one of -p, -f and --stdin, not {' and '.join(given) or 'none'}")
    if args.stdin:
        text = read_stdin(final_newline=True)
    else:
        text = args.prompt if args.prompt is not None else read_file(args.file, final_newline=True)
    return process_escapes(text) if args.escape else text
