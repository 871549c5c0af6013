"""The command `minillama`: one small module a subcommand, llama.cpp's flags, text on stdout and the rest on stderr."""

import gc
import io
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from minillama import __version__, env
from minillama.cli.arguments.parser import Parser
from minillama.cli.output.terminal import BROKEN_PIPE, INTERRUPTED
from minillama.errors import MinillamaError, OptionError

# Subcommand -> its module here, which has `add_parser(subparsers)` and `run(args) -> int`.
COMMANDS = {
    "run": "run",
    "cli": "chat",
    "simple": "simple",
    "tokenize": "tokenize",
    "inspect": "inspect",
    "synth": "synth",
    "quantize": "quantize",
    "imatrix": "imatrix",
    "bench": "bench",
    "latency": "latency",
    "perplexity": "perplexity",
    "quality": "quality",
    "worker": "worker",
    "doctor": "doctor",
    "lab": "lab",
}
ALIASES = {"main": "run", "completion": "run", "chat": "cli", "rpc-server": "worker"}

EPILOG = """\
Flags and defaults are llama.cpp's; LLAMA_ARG_* environment variables set them too.
examples:
  minillama run -p "Once upon a time" -n 64       the built-in model goes on with a story
  minillama cli -hf user/model-GGUF:Q4_K_M        talk to a model from the Hugging Face hub
  minillama doctor                                is everything as it should be?
"""


def entry() -> None:
    """The installed command: run, and leave with the exit status."""
    gc.set_threshold(1_000_000, 20, 100)  # what imports and vocabularies make stays: looking through it is in vain
    sys.setswitchinterval(0.0005)  # threads that fetch what is compiled need Python for moments only, but often
    env.prepare(cache_executables=True)
    status = main()
    gc.freeze()  # nor is it looked through at the end
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 0 good, 1 a check failed, 2 wrong use, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except MinillamaError as error:
        _say(f"minillama: error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("")
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as leave:  # argparse leaves this way after --help and --version
        return leave.code if isinstance(leave.code, int) else 0


def build_parser(commands: Iterable[str] = COMMANDS) -> Parser:
    """The parser of some subcommands; their modules import what is heavy only when they run."""
    parser = Parser(
        prog="minillama",
        description="Run, measure and study large language models in GGUF files.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"minillama {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in commands:
        import_module(f"minillama.cli.{COMMANDS[command]}").add_parser(subparsers)
    return parser


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ALIASES:
        words[0] = ALIASES[words[0]]
    parser = build_parser(words[:1] if words and words[0] in COMMANDS else COMMANDS)
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise OptionError(f"no command {words[0]}; there are: {', '.join(COMMANDS)}")
    args = parser.parse_args(words)
    return import_module(f"minillama.cli.{COMMANDS[args.command]}").run(args)


def _prepare_streams() -> None:
    """UTF-8 whatever the locale says (models write any script), and warnings of the library on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    logger = logging.getLogger("minillama")
    if not logger.handlers:
        logger.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """One line a message, in the shape of the error line."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(f"minillama: {record.levelname.lower()}: {record.getMessage()}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
