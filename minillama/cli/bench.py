"""`minillama bench`: tokens per second of prompts and generation (llama.cpp: llama-bench)."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from minillama import env
from minillama.cli.arguments.bench_flags import device_flags, setup_flags, sharing_flags, workload_flags
from minillama.cli.arguments.bench_options import add_bench_options
from minillama.cli.arguments.model_from_args import (
    check_flash_attention,
    check_sharing,
    find_model,
    in_cluster,
    platform_of,
    prepare_machine,
    take_secret,
    virtual_devices,
)
from minillama.cli.output.exclusive_measurement import exclusive_measurement
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.engine.loading.device_sharing import DeviceSharing
from minillama.env import MINILLAMA
from minillama.errors import OptionError
from minillama.measure.speed.bench_plan import Plan, Setup, Workload

if TYPE_CHECKING:
    from minillama.measure.speed.bench_output import Output
    from minillama.measure.speed.bench_record import Record

DESCRIPTION = """\
Measure tokens per second as llama-bench does: ppN reads a prompt of N random tokens, tgN decodes N tokens one by one,
without sampling; @ dN: after N tokens of context. Options take lists and ranges, and all combinations run:
  -p 512,1024    -t 1-4    -d 0-8192+2048    -ub 64-512*2    -n 0 (no such test)
Compile and load time are not included; -o json reports them separately.
"""
EPILOG = """\
interleaved A/B runs with llama.cpp, on the same file with the same settings:
  minillama bench -m model.gguf -t 1,2 -p 512 -n 64 -d 0,2048 --against path/to/llama-bench
before and after a change, with a 95 % interval:
  minillama bench -o json > before.json
  minillama bench --compare before.json
"""
DEFAULT_REPETITIONS = 5


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("bench", help="measure tokens per second", description=DESCRIPTION, epilog=EPILOG)
    add_bench_options(parser)


def run(args: argparse.Namespace) -> int:
    _check(args)
    check_sharing(args)
    if args.verbose:
        logging.getLogger("minillama").setLevel(logging.DEBUG)
    from minillama.cli.output.bench_compare import ComparedMarkdown, compare_stored, stored_files

    stored = stored_files(args)
    if len(stored) == 2:
        return compare_stored(stored, as_json=args.output == "json")
    plan = _plan(args)
    alone: AbstractContextManager[None] = nullcontext()
    if not args.inner:
        alone = exclusive_measurement(
            "minillama bench", lock=args.lock, timeout=args.lock_timeout, has_workers=args.workers is not None
        )
    with alone:
        if args.against is not None:
            from minillama.cli.output.bench_against import run_against

            return run_against(args, plan)
        first = ComparedMarkdown(plan, stored[0], as_json=args.output == "json") if stored else None
        return _measure(args, plan, _Printer(args, plan, first))


def _measure(args: argparse.Namespace, plan: Plan, printer: "_Printer") -> int:
    repetitions = DEFAULT_REPETITIONS if args.repetitions is None else args.repetitions
    setups = list(plan.setups())
    trials = plan.workload.trials()

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
            # JAX fixes its threads at its start, so each number of threads needs its own process.
            measured = _measure_in_children if len(plan.n_threads) > 1 else _measure_here
            for record in measured(args, setups, plan, repetitions, advance):
                bar.clear()
                printer.show(record)
    except KeyboardInterrupt:
        note("minillama: interrupted; the results so far are above")
        return INTERRUPTED
    finally:
        printer.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, given in (("--against", args.against), ("--compare", args.compare)):
        if given is not None and args.output not in ("md", "json"):
            raise OptionError(f"-o {args.output}: with {name} use md or json")
        if given is not None and args.output_err != "none":
            raise OptionError(f"-oe {args.output_err}: not with {name}")
    if args.against is not None and args.compare is not None:
        raise OptionError("--against and --compare: use one of them")
    for name, value in (("-r", args.repetitions), ("--rounds", args.rounds)):
        if value is not None and value < 1:
            raise OptionError(f"{name} {value}: should be at least 1")
    for name, value in (("--delay", args.delay), ("--lock-timeout", args.lock_timeout)):
        if value is not None and not 0 <= value < float("inf"):
            raise OptionError(f"{name} {value}: should be a number of seconds, 0 or more")
    platform_of(args.device)
    for flash_attn in getattr(args, "other_flash_attn", ()):
        for cache_type_v in _flat(args.cache_type_v, ("f16",)):
            check_flash_attention(flash_attn, cache_type_v)


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
        load_mode=_flat(args.load_mode, ("auto",)),
        workload=workload,
    )


def sharing(args: argparse.Namespace) -> DeviceSharing:
    """The devices or workers of -sm, -ts, -mg, -tp and --workers."""
    secret = take_secret(args.token_file) if args.workers is not None else None
    return DeviceSharing(args.split_mode, args.tensor_split, args.main_gpu, args.tensor_parallel, args.workers, secret)


def _flat(given: Sequence[tuple] | None, default: tuple) -> tuple:
    """All values of a repeatable option that takes lists."""
    return default if given is None else tuple(value for values in given for value in values)


def _measure_here(
    args: argparse.Namespace, setups: Sequence[Setup], plan: Plan, repetitions: int, advance: Callable[..., None]
) -> "Iterator[Record]":
    """Measure in this process, with one number of threads."""
    prepare_machine(args.device, plan.n_threads[0], cpu_devices=virtual_devices(args), cluster=in_cluster(args))

    from minillama.measure.speed.llama_bench import measure

    shared = sharing(args)
    for setup, (bandwidth, peak_flops) in zip(setups, _limits(args, setups, plan.n_threads[0]), strict=True):
        yield from measure(
            setup,
            plan.workload.trials(),
            repetitions,
            warmup=args.warmup,
            bandwidth=bandwidth,
            peak_flops=peak_flops,
            delay=args.delay,
            sharing=shared,
            advance=advance,
        )


def _limits(
    args: argparse.Namespace, setups: Sequence[Setup], threads: int
) -> "Iterator[tuple[float | None, float | None]]":
    """Bandwidth and peak operations per second for each setup, if they are to be measured."""
    from minillama.gguf import open_gguf
    from minillama.measure.host.child_process import call_in_child
    from minillama.measure.limits.bandwidth import bandwidth_of_threads
    from minillama.measure.limits.roofline import main_weight_type, measure_roofline

    roofs = {}
    bandwidth = call_in_child(bandwidth_of_threads, threads) if args.bandwidth and not args.roofline else None
    for setup in setups:
        if not args.roofline:
            yield bandwidth, None  # type: ignore[misc]
            continue
        kind = main_weight_type(open_gguf(setup.model))
        if kind not in roofs:
            roofs[kind] = measure_roofline(kind=kind)
        yield roofs[kind].bandwidth, roofs[kind].flops


def _measure_in_children(
    args: argparse.Namespace, setups: Sequence[Setup], plan: Plan, repetitions: int, advance: Callable[..., None]
) -> "Iterator[Record]":
    """Measure each setup in its own process."""
    from minillama.measure.host.child_process import stream_json_lines
    from minillama.measure.speed.bench_record import from_json
    from minillama.measure.speed.bench_tables import trial_of

    switches = ["--inner", *([] if args.warmup else ["--no-warmup"])]
    switches += [f"--{name}" for name in ("bandwidth", "roofline", "verbose") if getattr(args, name)]
    switches += ["--delay", str(args.delay)] if args.delay else []
    switches += device_flags(args.device)
    if args.workers is not None:
        raise OptionError("-t with several values and --workers: measure one number of threads at a time")
    switches += sharing_flags(sharing(args))
    for setup in setups:
        command = (
            *MINILLAMA,
            "bench",
            *setup_flags(setup),
            *workload_flags(plan.workload),
            "-r",
            str(repetitions),
            *switches,
        )
        for found in stream_json_lines((*command, "-o", "jsonl")):
            record = from_json(found)
            advance(trial_of(record).name, repetitions + args.warmup)
            yield record


class _Printer:
    """Prints results one by one on stdout, and with -oe on stderr too."""

    def __init__(self, args: argparse.Namespace, plan: Plan, first: "Output | None") -> None:
        from minillama.measure.speed.bench_output import FORMATS as OUTPUTS

        self._outputs: list[tuple[Output, Callable[[str], None]]] = [
            (first or OUTPUTS[args.output](plan, args.bandwidth, args.roofline), write_text)
        ]
        if args.output_err != "none":
            second = OUTPUTS[args.output_err](plan, args.bandwidth, args.roofline)
            self._outputs.append((second, _write_error))

    def show(self, record: "Record") -> None:
        for output, write in self._outputs:
            write(output.show(record))

    def close(self) -> None:
        """Print the end of each output."""
        for output, write in self._outputs:
            write(output.end())


def _write_error(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
