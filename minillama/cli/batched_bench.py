"""`minillama batched-bench`: tokens per second of several texts at once (llama.cpp: llama-batched-bench)."""

import argparse
import json
from itertools import product

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.model_from_args import open_model
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.values import choice, number, read_list
from minillama.cli.output.exclusive_measurement import exclusive_measurement
from minillama.cli.output.terminal import INTERRUPTED, note, write_text

DESCRIPTION = """\
Measure several texts at once, as llama-batched-bench does: -npl texts with prompts of -npp tokens and answers of -ntg.
PP is a prompt, TG an answer, B the number of texts, N_KV the tokens in all caches, T_... seconds, S_... tokens per
second. Lists and ranges are combined.
"""
EPILOG = """\
example:
  minillama batched-bench -m model.gguf -npp 128,256 -ntg 128 -npl 1,2,4,8,16
"""
_TRIALS = (
    Option(("-npp",), "tokens of a prompt (default: 128)", read_list(1), (128,)),
    Option(("-ntg",), "tokens of an answer (default: 128)", read_list(1), (128,)),
    Option(("-npl",), "texts at once (default: 1,2,4,8)", read_list(1), (1, 2, 4, 8)),
    Option(("-pps",), "one prompt for all texts (default: off)", None, False),
    Option(("-tgs",), "one text after the other (default: off)", None, False),
    Option(("--output-format",), "md or jsonl (default: md)", choice("md", "jsonl"), "md", value="FORMAT"),
    Option(("--lock",), "wait for other measurements on this machine (default: on)", None, True, off=("--no-lock",)),
    Option(("--lock-timeout",), "most seconds to wait for them (default: no limit)", number),
)  # fmt: skip
_CONTEXT = tuple(option for option in llama_options.CONTEXT if option.dest not in ("keep", "context_shift"))
_SHOW = tuple(option for option in llama_options.OUTPUT if option.dest in ("verbose", "log_disable", "verbosity"))


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "batched-bench", help="measure several texts at once", description=DESCRIPTION, epilog=EPILOG
    )
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "tests and output", _TRIALS)
    add_options(parser, "machine", llama_options.DEVICE + _CONTEXT + llama_options.CACHE)
    add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    add_options(parser, "messages", _SHOW)


def run(args: argparse.Namespace) -> int:
    with exclusive_measurement("minillama batched-bench", lock=args.lock, timeout=args.lock_timeout):
        return _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from minillama.measure.serving.batched_bench import BatchedTrial, batched_columns, measure_batched
    from minillama.measure.tables import md_head, md_row

    sizes = product(args.npp, args.ntg, args.npl)
    trials = [BatchedTrial(pp, tg, pl, args.pps, args.tgs) for pp, tg, pl in sizes]
    columns, as_lines = batched_columns(), args.output_format == "jsonl"
    llm = open_model(args)
    try:
        for place, record in enumerate(measure_batched(llm, trials)):
            if as_lines:
                write_text(json.dumps(record.as_dict()) + "\n")
            else:
                write_text(("" if place else md_head(columns)) + md_row(columns, record))
    except KeyboardInterrupt:
        note("minillama: interrupted; the results so far are above")
        return INTERRUPTED
    finally:
        llm.close()
    return 0
