"""`minillama bench`: tokens a second of prompts and of generation (llama.cpp: llama-bench), alone or side by side."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minillama import env
from minillama.cli import INTERRUPTED, options
from minillama.cli.model import find_model, platform_of, prepare_machine
from minillama.cli.options import Option
from minillama.cli.terminal import note, write_text
from minillama.errors import OptionError
from minillama.measure.plan import Plan, Setup, Workload, numbers

if TYPE_CHECKING:
    from minillama.measure.record import Record

DESCRIPTION = """\
Measure tokens a second as llama-bench does: ppN reads a prompt of N random tokens, tgN decodes N tokens one by one,
without sampling; @ dN behind N tokens of context. Options take lists and ranges, and all combinations run:
  -p 512,1024    -t 1-4    -d 0-8192+2048    -ub 64-512*2    -n 0 (no such test)
Compiling and loading are not in the figures; -o json tells them apart.
"""
EPILOG = """\
side by side with llama.cpp, by turns, on the same file with the same settings:
  minillama bench -m model.gguf -t 1,2 -p 512 -n 64 -d 0,2048 --against path/to/llama-bench
"""
FORMATS = ("md", "json", "jsonl", "csv")
DEFAULT_REPETITIONS, DEFAULT_ROUNDS = 5, 5


def _list(least: int) -> Callable[[str], tuple[int, ...]]:
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


_MODELS = Option(("-m", "--model"), "GGUF files, separated by commas or repeated (default: the built-in storyteller)",
                 _files, value="FILE", repeated=True)  # fmt: skip
_TESTS = (
    Option(("-p", "--n-prompt"), "lengths of prompts (default: 512)", _list(0), repeated=True),
    Option(("-n", "--n-gen"), "tokens to generate (default: 128)", _list(0), repeated=True),
    Option(("-pg",), "a prompt and generation behind it in one test, as 512,128", _pair, value="PP,TG", repeated=True),
    Option(("-d", "--n-depth"), "tokens of context before the test, not timed (default: 0)", _list(0), repeated=True),
)  # fmt: skip
_SETUP = (
    Option(("-b", "--batch-size"), "most tokens handed over at once (default: 2048)", _list(1), repeated=True),
    Option(("-ub", "--ubatch-size"), "most tokens computed at once (default: 512)", _list(1), repeated=True),
    Option(("-ctk", "--cache-type-k"), "type of the keys in the cache (default: f16)", _words, value="TYPE",
           repeated=True),
    Option(("-ctv", "--cache-type-v"), "type of the values (default: f16)", _words, value="TYPE", repeated=True),
    Option(("-t", "--threads"), "processor cores to compute on (default: all that this process may use)", _list(1),
           repeated=True),
    Option(("-ngl", "--n-gpu-layers"), "layers on the GPU; -1: all (default: -1)", _list(-1), repeated=True),
    Option(("-dev", "--device"), "cpu (or none), cuda or tpu (default: what JAX chooses)", value="NAME"),
)  # fmt: skip
_RUN = (
    Option(("-r", "--repetitions"), "times that each test is repeated (default: 5; 1 a round with --against)", int),
    Option(("-o", "--output"), "md, json, jsonl or csv (default: md)", str, "md", value="FORMAT"),
    Option(("--progress",), "show progress on stderr (default: if it is a terminal)", None, False),
    Option(("--warmup",), "run every test once before it counts (default: on)", None, True, off=("--no-warmup",)),
    Option(("--bandwidth",), "measure the memory's bandwidth, and show decoding's share of it", None, False),
)  # fmt: skip
_AGAINST = (
    Option(("--against",), "a llama-bench binary to run by turns with ours", value="PATH"),
    Option(("--rounds",), "how often each has its turn (default: 5)", int, DEFAULT_ROUNDS),
    Option(("--start",), "time and weigh whole processes too, if a llama-completion lies beside it (default: on)",
           None, True, off=("--no-start",)),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("bench", help="measure tokens a second", description=DESCRIPTION, epilog=EPILOG)
    hub = [option for option in options.MODEL if option.dest != "model"]
    options.add_options(parser, "model", [_MODELS, *hub])
    options.add_options(parser, "tests", _TESTS)
    options.add_options(parser, "setup", _SETUP)
    options.add_options(parser, "run and output", _RUN)
    options.add_options(parser, "side by side", _AGAINST)


def run(args: argparse.Namespace) -> int:
    _check(args)
    plan = _plan(args)
    if args.against is not None:
        from minillama.cli.bench_against import run_against

        return run_against(args, plan)
    repetitions = DEFAULT_REPETITIONS if args.repetitions is None else args.repetitions
    setups = list(plan.setups())
    trials = plan.workload.trials()
    printer = _Printer(args.output, plan, args.bandwidth)

    from tqdm import tqdm

    bar = tqdm(
        total=len(setups) * len(trials) * (repetitions + args.warmup),
        unit="run",
        leave=False,
        disable=not (args.progress or sys.stderr.isatty()),
    )

    def advance(name: str, runs: int = 1) -> None:
        bar.set_description(name, refresh=False)
        bar.update(runs)

    try:
        with bar:
            # JAX settles its threads when it starts, so several numbers of threads are several processes.
            measured = _in_children if len(plan.n_threads) > 1 else _here
            for record in measured(args, setups, plan, repetitions, advance):
                bar.clear()
                printer.show(record)
    except KeyboardInterrupt:
        note("minillama: interrupted; what was measured is above")
        return INTERRUPTED
    finally:
        printer.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.output not in FORMATS:
        raise OptionError(f"-o {args.output}: use one of {', '.join(FORMATS)}")
    if args.against is not None and args.output not in ("md", "json"):
        raise OptionError(f"-o {args.output}: with --against use md or json")
    for name, value in (("-r", args.repetitions), ("--rounds", args.rounds)):
        if value is not None and value < 1:
            raise OptionError(f"{name} {value}: should be at least 1")
    platform_of(args.device)


def _plan(args: argparse.Namespace) -> Plan:
    workload = Workload(
        _flat(args.n_prompt, (512,)), _flat(args.n_gen, (128,)), tuple(args.pg or ()), _flat(args.n_depth, (0,))
    )
    if not workload.trials():
        raise OptionError("nothing to measure; give a length above 0 with -p, -n or -pg")
    names = _flat(args.model, (None,))
    return Plan(
        models=tuple(find_model(argparse.Namespace(**{**vars(args), "model": name})) for name in names),
        n_threads=_flat(args.threads, (len(env.describe().affinity),)),
        n_gpu_layers=_flat(args.n_gpu_layers, (-1,)),
        n_batch=_flat(args.batch_size, (2048,)),
        n_ubatch=_flat(args.ubatch_size, (512,)),
        type_k=_flat(args.cache_type_k, ("f16",)),
        type_v=_flat(args.cache_type_v, ("f16",)),
        workload=workload,
    )


def _flat(given: Sequence[tuple] | None, default: tuple) -> tuple:
    """All values of an option that takes lists and may be repeated."""
    return default if given is None else tuple(value for values in given for value in values)


def _here(
    args: argparse.Namespace, setups: Sequence[Setup], plan: Plan, repetitions: int, advance: Callable[..., None]
) -> "Iterator[Record]":
    """Measure in this process; there is one number of threads."""
    prepare_machine(args.device, plan.n_threads[0])

    from minillama.measure.bandwidth import read_bandwidth
    from minillama.measure.bench import measure
    from minillama.measure.process import in_own_process

    bandwidth = in_own_process(read_bandwidth, plan.n_threads[0]) if args.bandwidth else None
    for setup in setups:
        yield from measure(
            setup, plan.workload.trials(), repetitions, warmup=args.warmup, bandwidth=bandwidth, advance=advance
        )


def _in_children(
    args: argparse.Namespace, setups: Sequence[Setup], plan: Plan, repetitions: int, advance: Callable[..., None]
) -> "Iterator[Record]":
    """Measure each setup in a process of its own."""
    from minillama.measure.process import MINILLAMA, json_lines
    from minillama.measure.record import from_json
    from minillama.measure.report import trial_of

    switches = ([] if args.warmup else ["--no-warmup"]) + (["--bandwidth"] if args.bandwidth else [])
    if args.device is not None:
        switches += ["-dev", args.device]
    for setup in setups:
        command = (*MINILLAMA, "bench", *setup.flags(), *plan.workload.flags(), "-r", str(repetitions), *switches)
        for found in json_lines((*command, "-o", "jsonl")):
            record = from_json(found)
            advance(trial_of(record).name, repetitions + args.warmup)
            yield record


class _Printer:
    """Prints results as they come, in one of the formats."""

    def __init__(self, output: str, plan: Plan, bandwidth: bool) -> None:
        self._output, self._plan, self._bandwidth = output, plan, bandwidth
        self._table: Sequence = ()
        self._last: Record | None = None

    def show(self, record: "Record") -> None:
        from minillama.measure import report

        first, self._last = self._last is None, record
        if self._output == "md":
            if first:
                self._table = report.columns(self._plan, record.backends, bandwidth=self._bandwidth)
                write_text(report.md_head(self._table))
            write_text(report.md_row(self._table, record))
        elif self._output == "csv":
            write_text((report.csv_head() if first else "") + report.csv_row(record))
        elif self._output == "jsonl":
            write_text(json.dumps(record.as_dict()) + "\n")
        else:
            write_text(("[\n" if first else ",\n") + textwrap.indent(json.dumps(record.as_dict(), indent=2), "  "))

    def close(self) -> None:
        """End what was begun."""
        from minillama.measure import report

        if self._output == "json":
            write_text("[]\n" if self._last is None else "\n]\n")
        elif self._output == "md" and self._last is not None:
            write_text(report.md_foot(self._last))
