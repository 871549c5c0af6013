"""The command `minillama`: one module per subcommand, with llama.cpp's flags.

Generated text and results go to stdout, messages to stderr.
"""

import argparse
import gc
import io
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module

from minillama import env
from minillama.cli.arguments.parser import Parser, UnknownOptionError
from minillama.cli.end_signals import Terminated, end_status, exit_now, exit_on_signal, handle_end_signals
from minillama.cli.output.standard_streams import OutputError, open_standard_streams
from minillama.cli.output.terminal import BROKEN_PIPE, INTERRUPTED, TERMINATED, note
from minillama.cli.translation.command_texts import error_text
from minillama.errors import MinillamaError, OptionError, ResourceError
from minillama.printable_text import printable_line

# Subcommand -> module in this folder with `add_parser(subparsers)` and `run(args) -> int`.
COMMANDS = {
    "run": "run",
    "cli": "chat",
    "serve": "server",
    "simple": "simple",
    "tokenize": "tokenize",
    "inspect": "inspect",
    "convert": "convert",
    "synth": "synth",
    "quantize": "quantize",
    "imatrix": "imatrix",
    "bench": "bench",
    "bench-serve": "bench_serve",
    "batched-bench": "batched_bench",
    "latency": "latency",
    "perplexity": "perplexity",
    "quality": "quality",
    "worker": "worker",
    "doctor": "doctor",
    "lab": "lab",
    "course": "course",
}
ALIASES = {"main": "run", "completion": "run", "chat": "cli", "server": "serve", "rpc-server": "worker"}

EPILOG = """\
Flags and defaults are llama.cpp's; LLAMA_ARG_* environment variables set them too.
examples:
  minillama run -p "Once upon a time" -n 64       the built-in model continues a story
  minillama cli -hf user/model-GGUF:Q4_K_M        chat with a model from the Hugging Face hub
  minillama serve -m model.gguf                   an HTTP server for OpenAI's clients
  minillama doctor                                check the installation and the machine
"""


def entry() -> None:
    """Entry point of the installed command: run, and exit with the status."""
    gc.set_threshold(1_000_000, 20, 100)  # objects of imports and vocabularies live to the end
    sys.setswitchinterval(0.0005)  # threads that load executables need the lock often, but shortly
    open_standard_streams()
    handle_end_signals()
    warnings.showwarning = _show_warning
    env.prepare(cache_executables=True)
    status = main()
    if status in (INTERRUPTED, TERMINATED, BROKEN_PIPE):
        exit_now(status)
    exit_on_signal()
    gc.freeze()  # no collection at exit
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    0: success. 1: a check failed. 2: wrong use or another error. 130: interrupted. 141: broken pipe.
    143: terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        try:
            status = _dispatch(words)
        except SystemExit as leave:  # argparse exits after --help and --version
            status = leave.code if isinstance(leave.code, int) else 0
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return _report(error)


def _report(error: BaseException) -> int:
    """Print the line of an error, and return the exit status.

    An unexpected error is raised again, unless a signal has caused it.
    """
    ended = INTERRUPTED if isinstance(error, KeyboardInterrupt) else end_status()
    if ended is not None:
        note()
        return ended
    if isinstance(error, OutputError):
        if error.broken_pipe:
            return BROKEN_PIPE
        error = ResourceError(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        error = ResourceError(f"{name}{error.strerror or error}")
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("minillama"):
        error = ResourceError(f"the Python package {error.name} is missing; install it: pip install {error.name}")
    if not isinstance(error, MinillamaError):
        raise error
    note(f"minillama: error: {error_text(str(error))}")
    return 2


def build_parser(commands: Iterable[str] = COMMANDS) -> Parser:
    """The parser of some subcommands; heavy imports happen only when a command runs."""
    parser = Parser(
        prog="minillama",
        description="Run, measure and study large language models in GGUF files.",
        epilog=EPILOG,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in commands:
        import_module(f"minillama.cli.{COMMANDS[command]}").add_parser(subparsers)
    return parser


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; raises OptionError, with the owners of an unknown option."""
    command = words[0] if words and words[0] in COMMANDS else None
    try:
        return _parser_of(command).parse_args(words)
    except UnknownOptionError as error:
        raise OptionError(_explain(error, command)) from None


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ALIASES:
        words[0] = ALIASES[words[0]]
    if not words:
        build_parser().print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise OptionError(f"no command {words[0]}; the commands are: {', '.join(COMMANDS)}")
    args = parse_arguments(words)
    if getattr(args, "list_devices", False):
        from minillama.cli.arguments.model_from_args import list_devices

        return list_devices(args.device)
    return import_module(f"minillama.cli.{COMMANDS[args.command]}").run(args)


@cache
def _parser_of(command: str | None) -> Parser:
    return build_parser(COMMANDS if command is None else (command,))


def _explain(error: UnknownOptionError, command: str | None) -> str:
    """Name the commands or the tool of llama.cpp that have an option."""
    name = error.name.replace("_", "-") if error.name.startswith("--") else error.name
    owners = [owner for owner, names in _options_of_commands().items() if name in names]
    if owners and command is not None:
        return f"{error.name}: not an option of minillama {command}, but of minillama {', '.join(owners)}"
    return str(error)


@cache
def _options_of_commands() -> dict[str, frozenset[str]]:
    """The names of the options of each command."""
    (subparsers,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {command: frozenset(sub._option_string_actions) for command, sub in subparsers.choices.items()}


def _prepare_streams() -> None:
    """Use UTF-8 in any locale, and print the library's warnings on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    logger = logging.getLogger("minillama")
    if not logger.handlers:
        logger.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """Prints each log record as one line, like the error line."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"minillama: {record.levelname.lower()}: {error_text(record.getMessage())}")


def _show_warning(message: Warning | str, *details: object) -> None:
    """Show a Python warning of a library as one line."""
    note(f"minillama: warning: {printable_line(str(message))}")
