"""`minillama perplexity`: perplexity, KL divergence and multiple choice (llama-perplexity)."""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from minillama.atomic_file import check_target
from minillama.cli.arguments import llama_options, perplexity_options
from minillama.cli.arguments.ignored_options import add_ignored_options
from minillama.cli.arguments.model_from_args import is_quiet, open_model
from minillama.cli.arguments.option import add_options
from minillama.cli.arguments.prompt_text import read_text
from minillama.cli.output import perplexity_lines
from minillama.cli.output.terminal import INTERRUPTED, Interrupt, note, notes, write_text
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.engine.llm import LLM
    from minillama.measure.quality.kl_divergence import Divergence
    from minillama.measure.quality.multiple_choice import ChoiceResult
    from minillama.measure.quality.perplexity import Estimate
    from minillama.measure.quality.task_files import Task
    from minillama.measure.quality.text_windows import Stop, Windows

DESCRIPTION = """\
Measure the perplexity of a text as llama-perplexity does: windows of -c tokens, the second half of each scored.
  minillama perplexity -m model.gguf -f wiki.test.raw
Measure the KL divergence of a quantised model from its original in two steps:
  minillama perplexity -m model-f16.gguf -f wiki.test.raw --kl-divergence-base base.kld
  minillama perplexity -m model-q4_0.gguf --kl-divergence-base base.kld --kl-divergence
"""

Step = TypeVar("Step", "Estimate", "Divergence", "ChoiceResult")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "perplexity", help="measure how well a model predicts a text", description=DESCRIPTION
    )
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "text", perplexity_options.TEXT)
    add_options(parser, "perplexity and KL divergence", perplexity_options.PERPLEXITY)
    add_options(parser, "multiple choice", perplexity_options.TASKS)
    add_options(parser, "machine", llama_options.DEVICE + perplexity_options.CONTEXT + llama_options.CACHE)
    add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    add_options(parser, "output", perplexity_options.OUTPUT)
    add_ignored_options(parser, "perplexity", *perplexity_options.UNUSED)


def run(args: argparse.Namespace) -> int:
    modes = [name for name in ("hellaswag", "winogrande", "multiple_choice", "kl_divergence") if getattr(args, name)]
    _check(args, modes)
    measure = _MODES[modes[0]] if modes else _perplexity
    data = b"" if args.kl_divergence else read_text(args)
    return measure(args, data)


def _check(args: argparse.Namespace, modes: list[str]) -> None:
    if len(modes) > 1:
        raise OptionError(f"{' and '.join('--' + name.replace('_', '-') for name in modes)}: choose one")
    if args.ctx_size < 1:
        raise OptionError(f"-c {args.ctx_size}: perplexity needs a window of at least 4 tokens")
    if args.kl_divergence and args.kl_divergence_base is None:
        raise OptionError("--kl-divergence: name the file of log-probabilities with --kl-divergence-base")
    if args.ppl_stride and args.kl_divergence_base is not None:
        raise OptionError("--ppl-stride: files of log-probabilities have windows that do not overlap; leave it out")


def _open(args: argparse.Namespace, window: int) -> "LLM":
    """Load the model with a context of one window; a batch may hold several windows."""
    llm = open_model(argparse.Namespace(**{**vars(args), "ctx_size": window}))

    from minillama.engine.batches import Batches

    return replace(llm, batches=Batches(args.batch_size, min(args.batch_size, args.ubatch_size)))


def _perplexity(args: argparse.Namespace, data: bytes) -> int:
    stride, base = args.ppl_stride, args.kl_divergence_base
    if base is not None:
        check_target(base)
    llm = _open(args, args.ctx_size + stride // 2)

    from minillama.measure.quality.kl_divergence import record_base
    from minillama.measure.quality.perplexity import estimates
    from minillama.measure.quality.text_windows import chunked, strided

    _log(args, "perplexity: tokenizing the input ..")
    ids, chunks = llm.tokenizer.encode(data.decode("utf-8", errors="replace")), _chunks(args)
    windows = strided(llm, ids, stride, args.ctx_size, chunks) if stride else chunked(llm, ids, args.ctx_size, chunks)
    if base is not None:
        _log(args, f"perplexity: saving all logits to {base}")
    _log(args, f"perplexity: {'computing' if stride else 'calculating perplexity'} over {_shape(args, windows)}")

    def measure(stop: "Stop") -> "Iterable[Estimate]":
        return estimates(llm, windows, stop) if base is None else record_base(llm, windows, base, stop)

    def show(estimate: "Estimate") -> None:
        if estimate.chunk == 1:
            _log(args, f"perplexity: {_eta(estimate.seconds, windows)}")
        if args.ppl_output_type == 0:
            write_text(perplexity_lines.running(estimate))
        else:
            write_text(perplexity_lines.running_columns(estimate, stride or args.ctx_size, errors=not stride))

    last, interrupted = _show_progress(measure, windows.count, "chunk", show, lines=args.ppl_output_type == 1)
    if last is not None and interrupted:
        note(f"minillama: PPL of these = {last.ppl:.4f} +/- {last.error:.5f}")
    elif last is not None and not stride:
        write_text(perplexity_lines.final(last))
    return _end(args, last, windows, interrupted)


def _kl_divergence(args: argparse.Namespace, data: bytes) -> int:
    from minillama.measure.quality.kld_base_file import open_base

    base = open_base(args.kl_divergence_base)
    llm = _open(args, base.tokens.shape[1])

    from minillama.measure.quality.kl_divergence import base_windows, divergences

    windows = base_windows(llm, base, _chunks(args))
    _log(args, f"kl_divergence: computing over {_shape(args, windows)}")

    def measure(stop: "Stop") -> "Iterable[Divergence]":
        return divergences(llm, base, windows, stop)

    def show(found: "Divergence") -> None:
        if found.chunk == 1:
            _log(args, f"kl_divergence: {_eta(found.seconds, windows)}")
            write_text(f"\n{perplexity_lines.DIVERGENCE_HEAD}")
        write_text(perplexity_lines.divergence_row(found))

    last, interrupted = _show_progress(measure, windows.count, "chunk", show)
    if last is not None and last.count >= perplexity_lines.MIN_TOKENS:
        write_text(perplexity_lines.divergence_statistics(last))
    return _end(args, last, windows, interrupted)


def _log(args: argparse.Namespace, line: str) -> None:
    """Print a line on stderr, unless -lv or --log-disable hides it."""
    if not is_quiet(args):
        note(line)


def _chunks(args: argparse.Namespace) -> int | None:
    return None if args.chunks < 0 else args.chunks


def _shape(args: argparse.Namespace, windows: "Windows") -> str:
    size, batch = windows.size, args.batch_size
    batch = min(batch, max(1, batch // size) * size)  # as llama.cpp reduces it
    return f"{windows.count} chunks, n_ctx={size}, batch_size={batch}, n_seq={windows.per_pass}"


def _eta(seconds: float, windows: "Windows") -> str:
    """Estimated time, from the seconds of one window."""
    together = min(windows.per_pass, windows.count)
    return perplexity_lines.eta(seconds * together, windows.count / together)


def _end(args: argparse.Namespace, last: "Estimate | Divergence | None", windows: "Windows", interrupted: bool) -> int:
    """Print the speed and return the exit status."""
    if args.perf and not is_quiet(args) and last is not None:
        tokens, seconds = last.chunk * windows.size, max(last.seconds, 1e-9)
        notes(f"\nminillama: prompt eval time = {perplexity_lines.speed(tokens, seconds)}")
    return INTERRUPTED if interrupted else 0


def _show_progress(
    measure: "Callable[[Stop], Iterable[Step]]",
    total: int,
    unit: str,
    show: "Callable[[Step], None]",
    *,
    lines: bool = True,
) -> "tuple[Step | None, bool]":
    """Show each result when it arrives, until the end or Ctrl-C.

    Returns the last result, and whether there was an interrupt. lines: the shown text ends with a line end; if not,
    a progress bar on the same terminal would overwrite it.
    """
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or (sys.stdout.isatty() and not lines)
    last, done = None, 0
    with Interrupt() as interrupt, tqdm(total=total, unit=unit, leave=False, disable=hidden) as bar:
        for last in measure(lambda: interrupt.requested):
            bar.clear()
            show(last)
            bar.update()
            done += 1
    write_text("\n")
    if done < total:
        note(f"minillama: interrupted after {done} of {total} {unit}s")
    return last, done < total


def _hellaswag(args: argparse.Namespace, data: bytes) -> int:
    from minillama.measure.quality.task_files import draw_uniformly, read_hellaswag

    tasks = read_hellaswag(data.decode("utf-8", errors="replace"))
    _log(args, f"hellaswag_score : loaded {len(tasks)} tasks from prompt.")
    chosen = draw_uniformly(tasks, args.hellaswag_tasks)
    _log(args, f"hellaswag_score : selecting {len(chosen)} randomized tasks.")
    return _choose(args, chosen, perplexity_lines.HELLASWAG_HEAD, perplexity_lines.hellaswag_row)


def _winogrande(args: argparse.Namespace, data: bytes) -> int:
    from minillama.measure.quality.task_files import draw_scaled, read_winogrande

    tasks = read_winogrande(data.decode("utf-8", errors="replace"))
    _log(args, f"winogrande_score : loaded {len(tasks)} tasks from prompt.")
    chosen = draw_scaled(tasks, args.winogrande_tasks)
    if len(chosen) < len(tasks):
        _log(args, f"winogrande_score : selecting {len(chosen)} random tasks")
    return _choose(args, chosen, "", perplexity_lines.winogrande_row, perplexity_lines.winogrande_final)


def _multiple_choice(args: argparse.Namespace, data: bytes) -> int:
    from minillama.measure.quality.task_files import draw_scaled, read_multiple_choice

    tasks = read_multiple_choice(data)
    _log(args, f"multiple_choice_score: there are {len(tasks)} tasks in prompt")
    chosen = draw_scaled(tasks, args.multiple_choice_tasks)
    if len(chosen) < len(tasks):
        _log(args, f"multiple_choice_score: selecting {len(chosen)} random tasks from {len(tasks)} tasks available")
    head, end = perplexity_lines.MULTIPLE_CHOICE_HEAD, perplexity_lines.multiple_choice_final
    return _choose(args, chosen, head, perplexity_lines.multiple_choice_row, end)


_MODES: dict[str, Callable[[argparse.Namespace, bytes], int]] = {
    "hellaswag": _hellaswag,
    "winogrande": _winogrande,
    "multiple_choice": _multiple_choice,
    "kl_divergence": _kl_divergence,
}


def _choose(
    args: argparse.Namespace,
    tasks: "list[Task]",
    head: str,
    row: "Callable[[ChoiceResult], str]",
    end: "Callable[[ChoiceResult], str]" = lambda answer: "",
) -> int:
    """Score multiple-choice tasks and print a row per task."""
    llm = _open(args, args.ctx_size)

    from minillama.measure.quality.multiple_choice import running_choices

    write_text(head)
    last, interrupted = _show_progress(
        lambda stop: running_choices(llm, tasks, stop), len(tasks), "task", lambda answer: write_text(row(answer))
    )
    if last is not None:
        write_text(end(last))
    return INTERRUPTED if interrupted else 0
