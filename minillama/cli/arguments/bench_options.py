"""The options of `minillama bench`: all of llama-bench's, and minillama's own."""

import argparse
from dataclasses import replace
from pathlib import Path

from minillama import __version__
from minillama.cli.arguments import llama_options
from minillama.cli.arguments.ignored_options import BENCH_OPTIONS, add_ignored_options
from minillama.cli.arguments.llama_options import Option
from minillama.cli.arguments.number_lists import numbers, read_list
from minillama.cli.arguments.parser import Parser

DEFAULT_ROUNDS = 5
LOAD_MODES = ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")


def _pair(text: str) -> tuple[int, int]:
    """`512,128`: the lengths of a prompt and of the generation after it."""
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
    Option(("-p", "--n-prompt"), "prompt lengths in tokens (default: 512)", read_list(0), repeated=True),
    Option(("-n", "--n-gen"), "tokens to generate (default: 128)", read_list(0), repeated=True),
    Option(("-pg",), "a prompt followed by generation as one test, as in 512,128", _pair, value="PP,TG",
           repeated=True),
    Option(("-d", "--n-depth"), "tokens of context before the test, not timed (default: 0)", read_list(0),
           repeated=True),
)  # fmt: skip
SETUP = (
    Option(("-b", "--batch-size"), "logical batch size in tokens (default: 2048)", read_list(1), repeated=True),
    Option(("-ub", "--ubatch-size"), "physical batch size in tokens (default: 512)", read_list(1), repeated=True),
    Option(("-ctk", "--cache-type-k"), "KV cache type of the keys (default: f16)", _words, value="TYPE",
           repeated=True),
    Option(("-ctv", "--cache-type-v"), "KV cache type of the values (default: f16)", _words, value="TYPE",
           repeated=True),
    Option(("-t", "--threads"), "CPU cores to use (default: all that this process may use)", read_list(1),
           repeated=True),
    Option(("-ngl", "--n-gpu-layers"), "layers on the GPU; -1: all (default: -1)", read_list(-1), repeated=True),
    Option(("-dev", "--device"), "cpu (or none), cuda or tpu (default: JAX's choice)", value="NAME"),
    Option(("-lm", "--load-mode"), "auto, mmap, none (read the file), mlock (lock it) or mmap+mlock (default: auto)",
           _modes, value="MODE", repeated=True),
)  # fmt: skip
MULTI_DEVICE = tuple(
    replace(option, names=("-rpc", *option.names)) if option.dest == "workers" else option
    for option in llama_options.MULTI_DEVICE
)
RUN = (
    Option(("-r", "--repetitions"), "repetitions of each test (default: 5; with --against 1 per round)", int),
    Option(("-o", "--output"), "format on stdout: md, json, jsonl, csv or sql (default: md)", str, "md",
           value="FORMAT"),
    Option(("-oe", "--output-err"), "format on stderr, or none (default: none)", str, "none", value="FORMAT"),
    Option(("--progress",), "show progress on stderr (default: if it is a terminal)", None, False),
    Option(("--warmup",), "run every test once before the measured runs (default: on)", None, True,
           off=("--no-warmup",)),
    Option(("--delay",), "seconds to wait before each test (default: 0)", float, 0.0),
    Option(("-v", "--verbose"), "more messages on stderr", None, False),
    Option(("--list-devices",), "list the devices that JAX finds, and exit", None, False),
    Option(("--bandwidth",), "measure the memory bandwidth, and show the share that each test reaches", None, False),
    Option(("--roofline",), "measure bandwidth and matmul speed; show bytes, operations and shares of each test", None,
           False),
    Option(("--lock",), "wait for other measurements on this machine (default: on)", None, True, off=("--no-lock",)),
    Option(("--lock-timeout",), "most seconds to wait for them (default: no limit)", float),
)  # fmt: skip
AGAINST = (
    Option(("--against",), "path of a llama-bench binary: interleaved A/B runs with minillama", value="PATH"),
    Option(("--rounds",), "runs of each program (default: 5)", int, DEFAULT_ROUNDS),
    Option(("--start",), "also measure the start of whole processes, if llama-completion is in the same folder "
           "(default: on)", None, True, off=("--no-start",)),
)  # fmt: skip
COMPARE = (
    Option(("--compare",), "stored results (json or jsonl, llama-bench's too) to compare this run with; given twice: "
           "compare the two files and measure nothing", _files, value="FILE", repeated=True),
)  # fmt: skip


def add_bench_options(parser: Parser) -> None:
    """Add all options in groups; ignored ones are hidden from the help."""
    hub = [option for option in llama_options.MODEL if option.dest != "model"]
    llama_options.add_options(parser, "model", [MODELS, *hub])
    llama_options.add_options(parser, "tests", TESTS)
    llama_options.add_options(parser, "setup", SETUP)
    llama_options.add_options(parser, "devices and workers", MULTI_DEVICE)
    llama_options.add_options(parser, "run and output", RUN)
    llama_options.add_options(parser, "side by side", AGAINST)
    llama_options.add_options(parser, "comparison with stored results", COMPARE)
    parser.add_argument("--version", action="version", version=f"minillama {__version__}", help="show the version")
    # Set for child processes: the parent holds the lock and prints the messages.
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    add_ignored_options(parser, BENCH_OPTIONS)
