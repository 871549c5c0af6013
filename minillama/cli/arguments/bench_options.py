"""The options of `minillama bench`: all of llama-bench's, and minillama's own."""

import argparse
from dataclasses import replace
from pathlib import Path

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.option import Option, OtherOption, add_options, add_other_options
from minillama.cli.arguments.parser import Parser
from minillama.cli.arguments.values import (
    choice,
    cpu_mask,
    integer,
    integer_in,
    list_of,
    number,
    numbers,
    read_list,
    switch_or_auto,
    tensor_placement,
    unsigned,
)

DEFAULT_ROUNDS = 5
FORMATS = ("md", "json", "jsonl", "csv", "sql")


def _pair(text: str) -> tuple[int, int]:
    """`512,128`: the lengths of a prompt and of the generation after it."""
    try:
        prompt, gen = numbers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("expected two numbers, as in 512,128") from error
    return prompt, gen


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _files(text: str) -> tuple[str, ...]:
    return (text,) if Path(text).exists() else _words(text)


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
           list_of(choice(*llama_options.LOAD_MODES)), value="MODE", repeated=True),
)  # fmt: skip
MULTI_DEVICE = tuple(
    replace(option, names=("-rpc", *option.names)) if option.dest == "workers" else option
    for option in llama_options.MULTI_DEVICE
)
RUN = (
    Option(("-r", "--repetitions"), "repetitions of each test (default: 5; with --against 1 per round)", integer),
    Option(("-o", "--output"), "format on stdout: md, json, jsonl, csv or sql (default: md)", choice(*FORMATS), "md",
           value="FORMAT"),
    Option(("-oe", "--output-err"), "format on stderr, or none (default: none)", choice(*FORMATS, "none"), "none",
           value="FORMAT"),
    Option(("--progress",), "show progress on stderr (default: if it is a terminal)", None, False),
    Option(("--warmup",), "run every test once before the measured runs (default: on)", None, True,
           off=("--no-warmup",)),
    Option(("--delay",), "seconds to wait before each test (default: 0)", number, 0.0),
    Option(("-v", "--verbose"), "more messages on stderr", None, False),
    Option(("--list-devices",), "list the devices that JAX finds, and exit", None, False),
    Option(("--bandwidth",), "measure the memory bandwidth, and show the share that each test reaches", None, False),
    Option(("--roofline",), "measure bandwidth and matmul speed; show bytes, operations and shares of each test", None,
           False),
    Option(("--lock",), "wait for other measurements on this machine (default: on)", None, True, off=("--no-lock",)),
    Option(("--lock-timeout",), "most seconds to wait for them (default: no limit)", number),
)  # fmt: skip
AGAINST = (
    Option(("--against",), "path of a llama-bench binary: interleaved A/B runs with minillama", value="PATH"),
    Option(("--rounds",), "runs of each program (default: 5)", integer, DEFAULT_ROUNDS),
    Option(("--start",), "also measure the start of whole processes, if llama-completion is in the same folder "
           "(default: on)", None, True, off=("--no-start",)),
)  # fmt: skip
COMPARE = (
    Option(("--compare",), "stored results (json or jsonl, llama-bench's too) to compare this run with; given twice: "
           "compare the two files and measure nothing", _files, value="FILE", repeated=True),
)  # fmt: skip
_BITS = list_of(integer_in(0, 1))
_CORES = "use -t, or taskset outside"
_XLA = "XLA decides this itself"
_FIT = "the model is not fitted to memory; give -ngl"
_GONE = "llama-bench no longer has it; use"
OTHERS = (
    OtherOption("-fa --flash-attn", list_of(switch_or_auto), "attention is always computed in tiles",
                silent=(True, None)),
    OtherOption("-fitt --fit-target", list_of(unsigned), _FIT),
    OtherOption("-fitc --fit-ctx", list_of(unsigned), _FIT),
    OtherOption("--repack", _BITS, "weights stay as they are in the file"),
    OtherOption("-nkvo --no-kv-offload", _BITS, "the KV cache stays on the device of its layer", silent=(0,)),
    OtherOption("-nopo --no-op-offload", _BITS, _XLA, silent=(0,)),
    OtherOption("--no-host", _BITS, _XLA, silent=(0,)),
    OtherOption("--numa", choice("distribute", "isolate", "numactl", ""), "use numactl outside"),
    OtherOption("--prio", integer_in(-1, 3), "use nice outside", silent=(0,)),
    OtherOption("--poll", read_list(0), _XLA, silent=(50,)),
    OtherOption("-C --cpu-mask", list_of(cpu_mask), _CORES, silent=("0x0", "0")),
    OtherOption("--cpu-strict", _BITS, _XLA, silent=(0,)),
    OtherOption("-ncmoe --n-cpu-moe", read_list(0), "experts stay on the device of their layer", silent=(0,)),
    OtherOption("-ot --override-tensor", tensor_placement, "tensors stay on the device of their layer"),
    OtherOption("-lzm --lazy-mode", list_of(choice("on", "auto", "off")),
                "a mapped file is always read while it is opened", silent=("auto",)),
    OtherOption("-embd --embeddings", _BITS, "embeddings are not supported yet", silent=(0,), refused=True),
    OtherOption("-mmp --mmap", _BITS, f"{_GONE} -lm none", silent=(1,), refused=True),
    OtherOption("-dio --direct-io", _BITS, f"{_GONE} -lm dio", silent=(0,), refused=True),
)  # fmt: skip


def add_bench_options(parser: Parser) -> None:
    """Add all options in groups; ignored ones are hidden from the help."""
    hub = [option for option in llama_options.MODEL if option.dest != "model"]
    add_options(parser, "model", [MODELS, *hub])
    add_options(parser, "tests", TESTS)
    add_options(parser, "setup", SETUP)
    add_options(parser, "devices and workers", MULTI_DEVICE)
    add_options(parser, "run and output", RUN)
    add_options(parser, "side by side", AGAINST)
    add_options(parser, "comparison with stored results", COMPARE)
    # Set for child processes: the parent holds the lock and prints the messages.
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    add_other_options(parser, OTHERS)
    parser.reports_variables = True
