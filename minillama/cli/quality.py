"""`minillama quality`: measure generated texts under different sampling settings."""

import argparse
import json
import sys
import textwrap
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.model_from_args import find_model, load_model, sampling_options, set_verbosity
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.prompt_text import process_escapes, read_file
from minillama.cli.arguments.values import integer, list_of
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.engine.llm import LLM
    from minillama.measure.texts.relevance import Scorer
    from minillama.measure.texts.text_quality import Prompt, QualityRow

DESCRIPTION = """\
Generate several texts per prompt under each sampling setting, and measure them. Sampling options take lists, and all
combinations run:
  --temp 0.2,0.8,1.2    --top-p 0.9,1    --repeat-penalty 1,1.1

distinct-n    different n-grams / all n-grams in the texts of one prompt
self-BLEU     BLEU-4 of each text with the others of its prompt as references (counts of 0 as 0.1): 1 for copies
rep-4         share of 4-grams that repeat an earlier one of the same text
TTR           type-token ratio: different words / words of a text
entropy       of the word distribution in the texts of one prompt, in bits
relevance F1  BERTScore with the reference, or else the prompt: 0 for unrelated texts, 1 for equal texts
log p         nats per token after the prompt, from the judge's probabilities before any sampling option

A Han character or kana is a word. A larger value means more diversity, except for self-BLEU and rep-4; all measures
depend on text length. Relevance and log p are comparable only within one model and one table.
"""
EPILOG = """\
examples:
  minillama quality -p "Tell me a story about a fox." --temp 0.2,0.8,1.2 -s 1
  minillama quality -m small.gguf --judge large.gguf -f prompts.txt --top-k 0,40 -o json
"""
FORMATS = ("md", "json")


# Numeric sampling options take lists.
_LISTS = tuple(
    replace(option, kind=list_of(option.kind), value="N,...")
    for option in llama_options.SAMPLING
    if option.kind not in (None, str) and option.dest not in ("seed", "logit_bias")
)
_OTHERS = tuple(
    option for option in llama_options.SAMPLING if option.dest in ("seed", "logit_bias", "samplers", "sampler_seq")
)
_PROMPTS = (
    Option(("-p", "--prompt"), "a prompt; may be repeated", value="TEXT", repeated=True),
    Option(("-f", "--file"), "file of prompts, one per line, each optionally with a tab and a reference", value="FILE"),
    Option(("--reference",), "file of references, one per line and prompt; for a single prompt the whole file",
           value="FILE"),
    Option(("-e", "--escape"), r"process escapes \n \t \" \\ \xHH in prompts (default: on)", None, True,
           off=("--no-escape",)),
    Option(("-n", "--predict", "--n-predict"), "tokens to generate per text (default: 64)", integer, 64),
    Option(("--samples",), "texts per prompt and setting (default: 8)", integer, 8),
)  # fmt: skip
_JUDGES = (
    Option(("--judge",), "GGUF file of the model that scores the texts (default: the same model)",
           value="FILE"),
    Option(("--layer",), "layer whose hidden states give relevance (default: at two thirds of the depth)", integer),
    Option(("--corpus",), "file of unrelated texts, one per line, for idf and the baseline (default: held-out stories)",
           value="FILE"),
    Option(("--bert-score",), "encoder for relevance, such as roberta-large; needs pip install 'minillama[quality]'",
           value="ENCODER"),
    Option(("-o", "--output"), "md, or json, which includes the texts (default: md)", str, "md", value="FORMAT"),
)  # fmt: skip
_SHOW = tuple(option for option in llama_options.OUTPUT if option.dest in ("verbose", "log_disable", "verbosity"))
_CHAT = tuple(option for option in llama_options.CHAT if not option.dest.startswith("system_prompt"))
_CONTEXT = tuple(option for option in llama_options.CONTEXT if option.dest not in ("keep", "context_shift"))


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "quality", help="measure texts under sampling settings", description=DESCRIPTION, epilog=EPILOG
    )
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "prompts and texts", _PROMPTS)
    add_options(parser, "measuring and output", _JUDGES)
    add_options(parser, "sampling: lists with commas", _LISTS)
    add_options(parser, "sampling", _OTHERS)
    add_options(parser, "chat", _CHAT)
    add_options(parser, "machine", llama_options.DEVICE + _CONTEXT + llama_options.CACHE)
    add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    add_options(parser, "messages", _SHOW)


def run(args: argparse.Namespace) -> int:
    _check(args)
    prompts = _prompts(args)
    chosen = _combinations(args)
    corpus = None if args.corpus is None else _lines(args.corpus)

    from minillama.sampling.sampling_params import Sampling

    for one in chosen:  # fails before a model is loaded
        Sampling(**sampling_options(one))
    if args.judge is not None:
        find_model(_judge(args))
    llm = load_model(chosen[0])
    settings = [llm.sampling(**sampling_options(one)) for one in chosen]
    judge = None if args.judge is None else load_model(_judge(chosen[0]))
    scorer = _scorer(args, judge or llm, prompts, corpus)

    from tqdm import tqdm

    from minillama.measure.texts.text_quality import measure_quality

    bar = tqdm(
        total=len(settings) * len(prompts) * args.samples, unit="text", leave=False, disable=not sys.stderr.isatty()
    )
    printer = _Printer(args.output, _shown(args))
    try:
        with bar:
            rows = measure_quality(
                llm,
                prompts,
                settings,
                samples=args.samples,
                n=args.predict,
                seed=-1 if args.seed is None else args.seed,
                chat=args.conversation,
                judge=judge,
                scorer=scorer,
                corpus=corpus,
                advance=bar.update,
            )
            for row in rows:
                bar.clear()
                printer.show(row)
    except KeyboardInterrupt:
        note("minillama: interrupted; the results so far are above")
        return INTERRUPTED
    finally:
        printer.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    set_verbosity(args)
    if args.output not in FORMATS:
        raise OptionError(f"-o {args.output}: use one of {', '.join(FORMATS)}")
    for name, value in (("-n", args.predict), ("--samples", args.samples)):
        if value < 1:
            raise OptionError(f"{name} {value}: should be at least 1")
    if args.layer is not None and args.bert_score is not None:
        raise OptionError("--layer belongs to the model's own states; leave it or --bert-score out")


def _prompts(args: argparse.Namespace) -> "list[Prompt]":
    """The prompts and their references, from -p or -f and --reference."""
    from minillama.measure.texts.text_quality import Prompt

    if (args.prompt is None) == (args.file is None):
        raise OptionError("give prompts with -p, which may be repeated, or with -f FILE, one per line")
    if args.file is None:
        pairs = [[prompt] for prompt in args.prompt]
    else:
        pairs = [line.split("\t") for line in _lines(args.file)]
    if wrong := next((pair for pair in pairs if len(pair) > 2), None):
        raise OptionError(
            f"{args.file}: the line {chr(9).join(wrong)!r} has {len(wrong) - 1} tabs; expected at most one"
        )
    if args.escape:
        pairs = [[process_escapes(text) for text in pair] for pair in pairs]
    if args.reference is None:
        return [Prompt(*pair) for pair in pairs]
    if any(len(pair) > 1 for pair in pairs):
        raise OptionError(f"references are in {args.file} and in {args.reference}; leave one out")
    references = [read_file(args.reference)] if len(pairs) == 1 else _lines(args.reference)
    if len(references) != len(pairs):
        raise OptionError(f"{args.reference}: {len(references)} references for {len(pairs)} prompts; give one per line")
    return [Prompt(pair[0], reference) for pair, reference in zip(pairs, references, strict=True)]


def _lines(path: str) -> list[str]:
    """The non-empty lines of a file."""
    lines = [line for line in read_file(path).splitlines() if line.strip()]
    if not lines:
        raise OptionError(f"{path}: there is no text in it")
    return lines


def _combinations(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments for all combinations of the lists; the last option varies fastest."""
    given = [option.dest for option in _LISTS if getattr(args, option.dest) is not None]
    return [
        argparse.Namespace(**{**vars(args), **dict(zip(given, values, strict=True))})
        for values in product(*(getattr(args, name) for name in given))
    ]


def _shown(args: argparse.Namespace) -> tuple[str, ...]:
    """Options with a column: the given ones and the temperature."""
    return tuple(option.dest for option in _LISTS if option.dest == "temp" or getattr(args, option.dest) is not None)


def _judge(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the judge as the model, and its own chat template."""
    other = {"model": args.judge, "hf_repo": None, "hf_file": None, "chat_template": None, "chat_template_file": None}
    return argparse.Namespace(**{**vars(args), **other})


def _scorer(args: argparse.Namespace, llm: "LLM", prompts: "list[Prompt]", corpus: list[str] | None) -> "Scorer | None":
    """The scorer of relevance; None for the default."""
    if args.layer is None and args.bert_score is None:
        return None
    from minillama.measure.texts.bert_score_package import package_scorer
    from minillama.measure.texts.relevance import hidden_scorer
    from minillama.measure.texts.text_quality import heldout_texts

    documents = [*(corpus or heldout_texts()), *(prompt.target for prompt in prompts)]
    if args.bert_score is not None:
        return package_scorer(args.bert_score, documents)
    return hidden_scorer(llm, documents, args.layer)


class _Printer:
    """Prints rows one by one, in Markdown or JSON."""

    def __init__(self, output: str, shown: tuple[str, ...]) -> None:
        self._output, self._shown = output, shown
        self._last: QualityRow | None = None

    def show(self, row: "QualityRow") -> None:
        from minillama.measure.tables import md_head, md_row
        from minillama.measure.texts.text_quality_table import quality_columns

        first, self._last = self._last is None, row
        if self._output == "md":
            table = quality_columns(self._shown)
            write_text((md_head(table) if first else "") + md_row(table, row))
        else:
            text = json.dumps(row.as_dict(), indent=2, ensure_ascii=False)
            write_text(("[\n" if first else ",\n") + textwrap.indent(text, "  "))

    def close(self) -> None:
        """Print the end of the output."""
        from minillama.measure.texts.text_quality_table import quality_foot

        if self._output == "json":
            write_text("[]\n" if self._last is None else "\n]\n")
        elif self._last is not None:
            write_text(quality_foot(self._last))
