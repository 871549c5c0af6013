"""`minillama latency`: time to first token, time between tokens, and memory usage."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from minillama import env
from minillama.cli.arguments import llama_options
from minillama.cli.arguments.model_from_args import find_model, platform_of, prepare_machine
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.values import choice, integer_in, number, read_list
from minillama.cli.output.exclusive_measurement import exclusive_measurement
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from minillama.engine.memory_usage import Usage
    from minillama.measure.speed.latency import ColdStart, Latency

DESCRIPTION = """\
Measure the time to first token of a fresh process (cold) and of a loaded model (warm), the time between tokens as
percentiles over repeats, and memory usage next to its formulas.
"""
SPARE = 4  # context positions that a prompt must leave free
_RUN = (
    Option(("-p", "--n-prompt"), "prompt lengths, a list or a range (default: 32,512)", read_list(1), (32, 512)),
    Option(("-n", "--n-gen"), "tokens to generate, including the first (default: 64)", integer_in(1), 64),
    Option(("-r", "--repetitions"), "repetitions of each length (default: 5)", integer_in(1), 5),
    Option(("-o", "--output"), "md or json (default: md)", choice("md", "json"), "md", value="FORMAT"),
    Option(("--cold",), "also measure a fresh process for each length (default: on)", None, True, off=("--no-cold",)),
    Option(("--lock",), "wait for other measurements on this machine (default: on)", None, True, off=("--no-lock",)),
    Option(("--lock-timeout",), "most seconds to wait for them (default: no limit)", number),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("latency", help="measure latency and memory", description=DESCRIPTION)
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "machine", [o for o in llama_options.DEVICE if o.dest in ("threads", "device")])
    add_options(parser, "run and output", _RUN)


def run(args: argparse.Namespace) -> int:
    _check(args)
    model = find_model(args)
    prepare_machine(args.device, args.threads)
    cold: list[ColdStart] = []
    warm: list[Latency] = []
    usages: list[Usage] = []
    status = 0
    with exclusive_measurement("minillama latency", lock=args.lock, timeout=args.lock_timeout):
        try:
            _measure(args, model, cold, warm, usages)
        except KeyboardInterrupt:
            note("minillama: interrupted; the results so far are printed")
            status = INTERRUPTED
        (_show_json if args.output == "json" else _show_tables)(str(model), cold, warm, usages)
    return status


def _measure(
    args: argparse.Namespace, model: "Path", cold: "list[ColdStart]", warm: "list[Latency]", usages: "list[Usage]"
) -> None:
    """Append results to the lists, so that an interrupt leaves the results so far."""
    from tqdm import tqdm

    from minillama.engine.load import load
    from minillama.engine.loading.memory_budget import round_up
    from minillama.measure.speed.latency import measure_cold, measure_latency

    lengths = args.n_prompt
    ctx_size = round_up(max(lengths) + args.n_gen + SPARE)
    threads, platform = args.threads if args.threads > 0 else None, platform_of(args.device)
    runs = len(lengths) * (args.repetitions + 1 + args.cold)
    with tqdm(total=runs, unit="run", leave=False, disable=not sys.stderr.isatty()) as bar:
        for length in lengths if args.cold else ():
            bar.set_description(f"{length} tokens, cold", refresh=False)
            cold.append(measure_cold(model, length, ctx_size=ctx_size, threads=threads, platform=platform))
            bar.update()
        llm = load(model, ctx_size=ctx_size, progress=False)
        for length in lengths:
            bar.set_description(f"{length} tokens, warm", refresh=False)
            warm.append(measure_latency(llm, length, n=args.n_gen, repeats=args.repetitions, advance=bar.update))
        usages.append(llm.measure([0] * max(lengths), n=1).usage)


def _check(args: argparse.Namespace) -> None:
    if args.lock_timeout is not None and not 0 <= args.lock_timeout < float("inf"):
        raise OptionError(f"--lock-timeout {args.lock_timeout}: should be a number of seconds, 0 or more")
    platform_of(args.device)


def _show_json(model: str, cold: "list[ColdStart]", warm: "list[Latency]", usages: "list[Usage]") -> None:
    whole = {
        "model_filename": model,
        "cpu_info": env.describe().cpu,
        "n_threads": env.thread_limits()[0],
        "cold": [each.as_dict() for each in cold],
        "warm": [each.as_dict() for each in warm],
        "memory": usages[0].as_dict() if usages else None,
    }
    write_text(json.dumps(whole, indent=2) + "\n")


def _show_tables(model: str, cold: "list[ColdStart]", warm: "list[Latency]", usages: "list[Usage]") -> None:
    from minillama.measure.speed import latency_tables

    tables = [
        latency_tables.cold_table(cold) if cold else "",
        latency_tables.warm_table(warm) if warm else "",
        *map(latency_tables.usage_table, usages),
    ]
    write_text("\n".join(table for table in tables if table))
