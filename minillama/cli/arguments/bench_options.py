"""The options of `minillama bench`: llama-bench's, all of them. Those that mean something here act; of the others it
is said in one line that they do nothing, or why they are refused."""

import argparse
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from minillama import __version__
from minillama.cli.arguments import llama_options
from minillama.cli.arguments.llama_options import Option
from minillama.cli.arguments.parser import Parser
from minillama.errors import OptionError, UnsupportedError
from minillama.measure.speed.bench_plan import numbers

logger = logging.getLogger("minillama")

DEFAULT_ROUNDS = 5
LOAD_MODES = ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")


def read_list(least: int) -> Callable[[str], tuple[int, ...]]:
    """A reader of lists and ranges of numbers."""

    def read(text: str) -> tuple[int, ...]:
        try:
            return numbers(text, least=least)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _pair(text: str) -> tuple[int, int]:
    """`512,128`: a prompt and what is generated after it."""
    try:
        prompt, gen = numbers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} should be two numbers, as in 512,128") from error
    return prompt, gen


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _files(text: str) -> tuple[str, ...]:
    return (text,) if Path(text).exists() else _words(text)


def _modes(text: str) -> tuple[str, ...]:
    modes = _words(text)
    wrong = [mode for mode in modes if mode not in LOAD_MODES]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} should be one of {', '.join(LOAD_MODES)}")
    return modes


MODELS = Option(("-m", "--model"), "GGUF files, separated by commas or repeated (default: the built-in storyteller)",
                _files, value="FILE", repeated=True)  # fmt: skip
TESTS = (
    Option(("-p", "--n-prompt"), "lengths of prompts (default: 512)", read_list(0), repeated=True),
    Option(("-n", "--n-gen"), "tokens to generate (default: 128)", read_list(0), repeated=True),
    Option(("-pg",), "a prompt and generation behind it in one test, as 512,128", _pair, value="PP,TG", repeated=True),
    Option(("-d", "--n-depth"), "tokens of context before the test, not timed (default: 0)", read_list(0),
           repeated=True),
)  # fmt: skip
SETUP = (
    Option(("-b", "--batch-size"), "most tokens handed over at once (default: 2048)", read_list(1), repeated=True),
    Option(("-ub", "--ubatch-size"), "most tokens computed at once (default: 512)", read_list(1), repeated=True),
    Option(("-ctk", "--cache-type-k"), "type of the keys in the cache (default: f16)", _words, value="TYPE",
           repeated=True),
    Option(("-ctv", "--cache-type-v"), "type of the values (default: f16)", _words, value="TYPE", repeated=True),
    Option(("-t", "--threads"), "processor cores to compute on (default: all that this process may use)", read_list(1),
           repeated=True),
    Option(("-ngl", "--n-gpu-layers"), "layers on the GPU; -1: all (default: -1)", read_list(-1), repeated=True),
    Option(("-dev", "--device"), "cpu (or none), cuda or tpu (default: what JAX chooses)", value="NAME"),
    Option(("-lm", "--load-mode"), "auto, mmap, none (read the file), mlock (lock it) or mmap+mlock (default: auto)",
           _modes, value="MODE", repeated=True),
)  # fmt: skip
SPREAD = tuple(replace(o, names=("-rpc", *o.names)) if o.dest == "workers" else o for o in llama_options.SPREAD)
RUN = (
    Option(("-r", "--repetitions"), "times that each test is repeated (default: 5; 1 a round with --against)", int),
    Option(("-o", "--output"), "on stdout: md, json, jsonl, csv or sql (default: md)", str, "md", value="FORMAT"),
    Option(("-oe", "--output-err"), "the same on stderr, or none (default: none)", str, "none", value="FORMAT"),
    Option(("--progress",), "show progress on stderr (default: if it is a terminal)", None, False),
    Option(("--warmup",), "run every test once before it counts (default: on)", None, True, off=("--no-warmup",)),
    Option(("--delay",), "seconds to rest before each test (default: 0)", float, 0.0),
    Option(("-v", "--verbose"), "say more on stderr", None, False),
    Option(("--list-devices",), "list what JAX computes on, and exit", None, False),
    Option(("--bandwidth",), "measure the memory's bandwidth, and show each test's share of it", None, False),
    Option(("--roofline",), "measure bandwidth and the speed of products; show what each test asks for and gets", None,
           False),
    Option(("--lock",), "wait for other measurements on this machine (default: on)", None, True, off=("--no-lock",)),
    Option(("--lock-timeout",), "seconds to wait for them at most (default: as long as it takes)", float),
)  # fmt: skip
AGAINST = (
    Option(("--against",), "a llama-bench binary to run by turns with ours", value="PATH"),
    Option(("--rounds",), "how often each has its turn (default: 5)", int, DEFAULT_ROUNDS),
    Option(("--start",), "time and weigh whole processes too, if a llama-completion lies beside it (default: on)",
           None, True, off=("--no-start",)),
)  # fmt: skip
COMPARE = (
    Option(("--compare",), "stored results (json or jsonl, llama-bench's too): this run beside them; given twice: "
           "these two beside each other, and nothing is measured", _files, value="FILE", repeated=True),
)  # fmt: skip


@dataclass(frozen=True)
class Idle:
    """An option of llama-bench without a meaning here: what its values look like, and what to say about it.

    `silent` are values that ask for what happens anyway; `refused` options are an error with any other.
    """

    names: tuple[str, ...]
    valid: str  # a regular expression for one value of the list; empty for a switch
    answer: str
    silent: tuple[str, ...] = ()
    refused: bool = False
    list_of: str = ","  # what separates values; empty where a value is one whole


_XLA = "XLA decides this itself"
_RANGE = r"-?[0-9]+(-[0-9]+([+*][0-9]+)?)?"
IDLE = (
    Idle(("--numa",), "distribute|isolate|numactl|", "use numactl outside", list_of=""),
    Idle(("--prio",), "-1|0|1|2|3", "use nice outside", ("0",), list_of=""),
    Idle(("-C", "--cpu-mask"), "(0x)?[0-9a-fA-F]+", "use -t, or taskset outside", ("0x0", "0")),
    Idle(("--cpu-strict",), "0|1", _XLA, ("0",)),
    Idle(("--poll",), _RANGE, _XLA, ("50",)),
    Idle(("-ncmoe", "--n-cpu-moe"), _RANGE, "experts stay where their layer is", ("0",)),
    Idle(("-nkvo", "--no-kv-offload"), "0|1", "the cache lies where its layer is", ("0",)),
    Idle(("-fa", "--flash-attn"), "on|enabled|true|1|off|disabled|false|0|auto|-1",
         "attention always goes tile by tile", ("on", "enabled", "true", "1", "auto", "-1")),
    Idle(("-lzm", "--lazy-mode"), "on|auto|off", "a mapped file is always read while it is opened", ("auto",)),
    Idle(("-embd", "--embeddings"), "0|1", "embeddings have not arrived yet", ("0",), refused=True),
    Idle(("-ot", "--override-tensor"), "[^=]+=.+", "tensors stay where their layer is", list_of=";"),
    Idle(("-nopo", "--no-op-offload"), "0|1", _XLA, ("0",)),
    Idle(("--no-host",), "0|1", _XLA, ("0",)),
    Idle(("--repack",), "0|1", "weights stay as they lie in the file", ("0",)),
    Idle(("-fitt", "--fit-target"), "[0-9]+", "the model is not fitted to memory; give -ngl"),
    Idle(("-fitc", "--fit-ctx"), "[0-9]+", "the model is not fitted to memory; give -ngl"),
    Idle(("-mmp", "--mmap"), "0|1", "llama-bench has it no longer; use -lm none", ("1",), refused=True),
    Idle(("-dio", "--direct-io"), "0|1", "llama-bench has it no longer; use -lm dio", ("0",), refused=True),
)  # fmt: skip


class _Idle(argparse.Action):
    """Say the option's line, or raise it; raises OptionError for a value that llama-bench would not take."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | list[str] | None,
        option_string: str | None = None,
    ) -> None:
        idle = next(idle for idle in IDLE if option_string in idle.names)
        text = values if isinstance(values, str) else ""
        for value in text.split(idle.list_of) if idle.list_of else [text]:
            if not re.fullmatch(idle.valid, value.strip()):
                raise OptionError(f"argument {'/'.join(idle.names)}: {value!r} is not a value of llama-bench's for it")
            if value.strip() in idle.silent:
                continue
            if idle.refused:
                raise UnsupportedError(f"{option_string} {value}: {idle.answer}")
            logger.warning("%s %s has no effect: %s", option_string, value, idle.answer)


def add_bench_options(parser: Parser) -> None:
    """All of them, in groups; those without a meaning are not in the help."""
    hub = [option for option in llama_options.MODEL if option.dest != "model"]
    llama_options.add_options(parser, "model", [MODELS, *hub])
    llama_options.add_options(parser, "tests", TESTS)
    llama_options.add_options(parser, "setup", SETUP)
    llama_options.add_options(parser, "devices and workers", SPREAD)
    llama_options.add_options(parser, "run and output", RUN)
    llama_options.add_options(parser, "side by side", AGAINST)
    llama_options.add_options(parser, "beside stored results", COMPARE)
    parser.add_argument("--version", action="version", version=f"minillama {__version__}", help="show the version")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)  # started by another one, which holds
    for idle in IDLE:  # the lock and says what there is to say
        parser.add_argument(
            *idle.names,
            action=_Idle,
            dest=f"idle_{idle.names[-1].lstrip('-')}",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
