"""Prompts from options, files and pipes, with llama.cpp's escape sequences."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.errors import OptionError, ResourceError

if TYPE_CHECKING:
    from minillama.engine.generate_options import GenerateOptions

_ESCAPE = re.compile(r"""((?:\\x[0-9a-fA-F]{2})+)|\\([nrt'"\\])""")
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


def process_escapes(text: str) -> str:
    r"""Replace \n \r \t \' \" \\ and \xHH.

    Consecutive \xHH may form one UTF-8 character; other backslashes stay.
    """

    def plain(match: re.Match[str]) -> str:
        if match[2]:
            return _PLAIN[match[2]]
        return bytes(int(digits, 16) for digits in match[1].split("\\x")[1:]).decode("utf-8", errors="replace")

    return _ESCAPE.sub(plain, text)


def read_file(path: str, *, final_newline: bool = False) -> str:
    """Content of a text file, without its last newline unless `final_newline`, as in llama.cpp."""
    text = read_bytes(path).decode("utf-8", errors="replace")  # line ends stay as they are
    return text if final_newline else text.removesuffix("\n")


def read_bytes(path: str) -> bytes:
    """Content of a file; raises ResourceError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ResourceError(f"{path or repr(path)}: {error.strerror or error}") from error


def text_bytes(text: str) -> bytes:
    """The bytes of a text of the command line, which may be no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def read_stdin(*, final_newline: bool = False) -> str:
    """Standard input, without its last newline unless `final_newline`; escape sequences stay."""
    try:
        text = sys.stdin.read()
    except OSError as error:
        raise OptionError(f"cannot read stdin ({error.strerror}); give the text with -p or -f") from error
    return text if final_newline else text.removesuffix("\n")


def read_prompt(args: argparse.Namespace, words: Sequence[str] = ()) -> str | None:
    """The prompt from -p, -f, -bf or positional words; None without any of them.

    Raises OptionError if more than one of them is given.
    """
    sources = {"-p": args.prompt, "-f": args.file, "-bf": args.binary_file, "words": " ".join(words) or None}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise OptionError(f"the prompt is given more than once ({' and '.join(given)}); choose one")
    if not given:
        return None
    text = sources[given[0]]
    if given[0] in ("-f", "-bf"):
        text = read_file(text, final_newline=given[0] == "-bf")
    return process_escapes(text) if args.escape else text


def read_text(args: argparse.Namespace) -> bytes:
    """The text of -p, -f or -bf, to be measured; -f drops the last newline."""
    given = {"-p": args.prompt, "-f": args.file, "-bf": args.binary_file}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise OptionError(f"give the text with one of -p, -f and -bf, not {' and '.join(names) or 'none'}")
    if args.binary_file is not None:
        return read_bytes(args.binary_file)
    if args.file is not None:
        return read_file(args.file).encode()
    return text_bytes(process_escapes(args.prompt) if args.escape else args.prompt)


def read_system_prompt(args: argparse.Namespace) -> str | None:
    """The system message of -sys or -sysf."""
    if args.system_prompt_file is not None:
        return read_file(args.system_prompt_file)
    if args.system_prompt is not None and args.escape:
        return process_escapes(args.system_prompt)
    return args.system_prompt


def read_grammar(args: argparse.Namespace) -> "GenerateOptions":
    """The grammar or JSON schema of the command line; nothing without one."""
    given = {
        "--grammar": args.grammar,
        "--grammar-file": args.grammar_file,
        "--json-schema": args.json_schema,
        "--json-schema-file": args.json_schema_file,
    }
    chosen = {name: value for name, value in given.items() if value}
    if len(chosen) > 1:
        raise OptionError(f"{' and '.join(chosen)} contradict each other; use one of them")
    found: GenerateOptions = {}
    for name, value in chosen.items():
        text = read_file(value) if name.endswith("file") else value
        found["json_schema" if "schema" in name else "grammar"] = text
    return found
