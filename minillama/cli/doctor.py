"""`minillama doctor`: describe the machine and check the installation."""

import argparse
import json
import os
from pathlib import Path

from minillama import env
from minillama.cli.arguments import llama_options
from minillama.cli.arguments.model_from_args import platform_of, prepare_machine
from minillama.cli.arguments.option import add_options
from minillama.cli.arguments.values import number
from minillama.cli.output.exclusive_measurement import exclusive_measurement
from minillama.cli.output.output_file import check_output_file
from minillama.cli.output.terminal import write_text
from minillama.errors import OptionError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation and the machine",
        description=__doc__,
        epilog="Exit status 1 if a check fails.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    shared = [option for option in llama_options.DEVICE if option.dest in ("threads", "threads_batch", "device")]
    add_options(parser, "machine", shared)
    ahead = parser.add_argument_group("programs compiled for an accelerator that is not here")
    ahead.add_argument(
        "--aot",
        choices=("cuda", "tpu"),
        metavar="TARGET",
        help="compile a model's programs for cuda (an H200) or tpu (a v5e), and print kernels, loops, memory and an "
        "estimate of speed; takes minutes",
    )
    models = ahead.add_mutually_exclusive_group()
    models.add_argument("-m", "--model", metavar="FILE", help="GGUF file (default: the built-in model)")
    models.add_argument("--shape", metavar="SHAPE", help="a shape of minillama synth, without a file")
    ahead.add_argument("--type", metavar="TYPE", help="with --shape: its file type (default: that of synth)")
    report = parser.add_argument_group("measurements of the GPU or TPU of this machine")
    report.add_argument(
        "--device-report",
        metavar="OUT",
        help="measure limits, agreement with the processor, speeds and kernels of the first GPU or TPU, and write them "
        "to a JSON file; with --device cpu a small form on the processor",
    )
    report.add_argument(
        "--limit",
        type=number,
        default=540.0,
        metavar="SECONDS",
        help="seconds for all steps; the most important come first (default: 540)",
    )
    report.add_argument("--steps", metavar="NAME,...", help="some of the steps (default: all)")
    report.add_argument(
        "--models",
        metavar="FOLDER",
        help="folder of the models with random weights, made once and kept: up to 34 GB (default: the folder of OUT)",
    )
    report.add_argument("--force", action="store_true", help="overwrite OUT")


def run(args: argparse.Namespace) -> int:
    if args.device_report is not None:
        return _report_device(args)
    for name in ("steps", "models"):
        if getattr(args, name) is not None:
            raise OptionError(f"--{name} needs --device-report, which measures the device")
    if args.aot is not None:
        return _compile_ahead(args)
    for name in ("model", "shape", "type"):
        if getattr(args, name) is not None:
            raise OptionError(f"--{name} needs --aot: the doctor examines the built-in model")
    prepare_machine(args.device, args.threads, args.threads_batch)

    from minillama.engine import doctor

    machine, versions = env.describe(), doctor.versions()
    if args.json:
        checks = list(doctor.examine())
        shown = [{"name": c.name, "status": c.status.value, "detail": c.detail, "remedy": c.remedy} for c in checks]
        good = all(check.status is not doctor.Status.FAIL for check in checks)
        report = {"machine": machine.as_dict(), "versions": versions, "checks": shown, "good": good}
        write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        return 0 if good else 1

    for label, value in _machine_rows(machine):
        write_text(f"{label:>15}  {value}\n")
    write_text(f"{'versions':>15}  {', '.join(f'{name} {version}' for name, version in versions.items())}\n\n")
    failed = 0
    for check in doctor.examine():
        failed += check.status is doctor.Status.FAIL
        write_text(f"{check.name:>15}  {check.status.value}  {check.detail}\n")
        if check.remedy:
            write_text(f"{'':>15}        -> {check.remedy}\n")
    write_text(f"\n{failed} check{'s' * (failed != 1)} failed\n" if failed else "\nall is well\n")
    return 1 if failed else 0


def _report_device(args: argparse.Namespace) -> int:
    """Measure the device in other processes, which have all of its memory."""
    if args.aot is not None:
        raise OptionError("--aot and --device-report: one is of a device that is not here; use one of them")
    if not 0 < args.limit < float("inf"):
        raise OptionError(f"--limit {args.limit:g}: should be a number of seconds above 0")
    path, on_cpu = Path(args.device_report), platform_of(args.device) == "cpu"
    check_output_file(path, force=args.force, option="with --device-report")
    models = path.parent if args.models is None else Path(args.models)
    if not models.is_dir():
        raise OptionError(f"--models {models}: there is no such folder; create it")
    prepare_machine(None, args.threads, args.threads_batch)

    from minillama.cli.output.device_report_table import show_report
    from minillama.measure.device.device_report import DeviceReport
    from minillama.measure.device.report_rows import FULL, REDUCED
    from minillama.measure.device.report_steps import steps_named

    names = [] if args.steps is None else args.steps.split(",")
    steps = steps_named(REDUCED if on_cpu else FULL, names)
    environment = dict(os.environ) | ({} if args.device is None else {"MINILLAMA_REPORT_DEVICE": args.device})
    with exclusive_measurement("minillama doctor", lock=True, timeout=None):
        return show_report(DeviceReport(path, args.limit), steps, models, environment, on_cpu=on_cpu)


def _compile_ahead(args: argparse.Namespace) -> int:
    """Print the table of `--aot`; the device of this process is the processor."""
    if args.type is not None and args.shape is None:
        raise OptionError(f"--type {args.type} needs --shape: a file has its own types")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu asks the machines of a cloud where it runs
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

    from minillama.engine.accelerators.targets import check_installed, target_named

    target = target_named(args.aot)
    check_installed(target)  # refuses before anything slow starts
    prepare_machine("cpu", args.threads, args.threads_batch)

    from minillama.cli.output import aot_table
    from minillama.engine.accelerators.model_shapes import file_of_shape
    from minillama.engine.loading.model_files import resolve
    from minillama.gguf import open_gguf
    from minillama.random_models.known_shapes import shape_named

    if args.shape is None:
        file = open_gguf(resolve(args.model))
    else:
        shape = shape_named(args.shape)
        file = file_of_shape(shape, args.type or shape.file_type)
    aot_table.write_json(file, target) if args.json else aot_table.write_table(file, target)
    return 0


def _machine_rows(machine: env.Machine) -> list[tuple[str, str]]:
    cores = f"{machine.physical_cores} physical, {machine.logical_cores} logical, {len(machine.affinity)} to use here"
    if machine.cpu_quota is not None:
        cores += f", with a quota of {machine.cpu_quota:g}"
    memory = "not known on this system"
    if machine.memory_total is not None and machine.memory_available is not None:
        memory = f"{machine.memory_total / 2**30:.1f} GiB, {machine.memory_available / 2**30:.1f} GiB of it free"
    return [
        ("system", f"{machine.system} ({machine.architecture})"),
        ("processor", machine.cpu),
        ("cores", cores),
        ("instructions", " ".join(machine.instruction_sets) or "not known on this system"),
        ("memory", memory),
    ]
