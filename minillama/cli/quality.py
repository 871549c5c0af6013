"""`minillama quality`: what sampling settings do to the texts of a model, one row a setting."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.llama_options import Option
from minillama.cli.arguments.model_from_args import find_model, load_model, sampling_options, set_verbosity
from minillama.cli.arguments.prompt_text import process_escapes, read_file
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.engine.llm import LLM
    from minillama.measure.texts.relevance import Scorer
    from minillama.measure.texts.text_quality import Prompt, QualityRow

DESCRIPTION = """\
Write several texts a prompt under each sampling setting, and measure them. Sampling options take lists, and all
combinations run:
  --temp 0.2,0.8,1.2    --top-p 0.9,1    --repeat-penalty 1,1.1

distinct-n    different runs of n words as a share of all, in the texts of one prompt
self-BLEU     BLEU-4 of each text against the others of its prompt (counts of 0 taken as 0.1): 1 for copies
rep-4         share of runs of 4 words that a text has had before
TTR           different words as a share of a text's words
entropy       bits of the distribution of the words of one prompt's texts
relevance F1  BERTScore against the reference, or else the prompt: 0 as unrelated texts, 1 the same text
log p         nats a token behind the prompt, by the judge's probabilities before any sampling option

A Han character or kana is a word. More is more diverse, but for self-BLEU and rep-4; all of it depends on the length of
the texts. Relevance and log p say something within one model and one table only.
"""
EPILOG = """\
examples:
  minillama quality -p "Tell me a story about a fox." --temp 0.2,0.8,1.2 -s 1
  minillama quality -m small.gguf --judge large.gguf -f prompts.txt --top-k 0,40 -o json
"""
FORMATS = ("md", "json")


def _list(kind: Callable[[str], object]) -> Callable[[str], tuple[object, ...]]:
    """A reader of numbers with commas between them."""

    def read(text: str) -> tuple[object, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} should be numbers with commas between them") from error

    return read


# Those of the sampler's options that are numbers take lists.
_LISTS = tuple(
    replace(option, kind=_list(option.kind), value="N,...")
    for option in llama_options.SAMPLING
    if option.kind in (int, float) and option.dest != "seed"
)
_OTHERS = tuple(
    option for option in llama_options.SAMPLING if option.dest in ("seed", "logit_bias", "samplers", "sampler_seq")
)
_PROMPTS = (
    Option(("-p", "--prompt"), "a prompt; may be repeated", value="TEXT", repeated=True),
    Option(("-f", "--file"), "file of prompts, one a line; a tab and a reference may follow", value="FILE"),
    Option(("--reference",), "file of references, one a line for each prompt; for a single prompt the whole file",
           value="FILE"),
    Option(("-e", "--escape"), r"read \n \t \" \\ \xHH in prompts (default: on)", None, True, off=("--no-escape",)),
    Option(("-n", "--predict", "--n-predict"), "most tokens of a text (default: 64)", int, 64),
    Option(("--samples",), "texts a prompt and setting (default: 8)", int, 8),
)  # fmt: skip
_JUDGES = (
    Option(("--judge",), "GGUF file of the model whose likelihoods and hidden states count (default: the same model)",
           value="FILE"),
    Option(("--layer",), "relevance by the states behind this layer (default: two thirds of the way up)", int),
    Option(("--corpus",), "file of unrelated texts, one a line, for idf and the baseline (default: held-out stories)",
           value="FILE"),
    Option(("--bert-score",), "relevance by an encoder such as roberta-large; needs pip install 'minillama[quality]'",
           value="ENCODER"),
    Option(("-o", "--output"), "md or json, which has the texts (default: md)", str, "md", value="FORMAT"),
)  # fmt: skip
_SHOW = tuple(option for option in llama_options.OUTPUT if option.dest in ("verbose", "log_disable"))
_CHAT = tuple(option for option in llama_options.CHAT if not option.dest.startswith("system_prompt"))
_CONTEXT = tuple(option for option in llama_options.CONTEXT if option.dest not in ("keep", "context_shift"))


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "quality", help="measure what sampling settings do to texts", description=DESCRIPTION, epilog=EPILOG
    )
    llama_options.add_options(parser, "model", llama_options.MODEL)
    llama_options.add_options(parser, "prompts and texts", _PROMPTS)
    llama_options.add_options(parser, "measuring and output", _JUDGES)
    llama_options.add_options(parser, "sampling: lists with commas", _LISTS)
    llama_options.add_options(parser, "sampling", _OTHERS)
    llama_options.add_options(parser, "chat", _CHAT)
    llama_options.add_options(parser, "machine", llama_options.DEVICE + _CONTEXT + llama_options.CACHE)
    llama_options.add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    llama_options.add_options(parser, "messages", _SHOW)


def run(args: argparse.Namespace) -> int:
    _check(args)
    prompts = _prompts(args)
    chosen = _combinations(args)
    corpus = None if args.corpus is None else _lines(args.corpus)

    from minillama.sampling.sampling_params import Sampling

    for one in chosen:  # before a model is loaded for nothing
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
        note("minillama: interrupted; what was measured is above")
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
    """The prompts with their references, from -p or -f and --reference."""
    from minillama.measure.texts.text_quality import Prompt

    if (args.prompt is None) == (args.file is None):
        raise OptionError("give prompts with -p, which may be repeated, or with -f FILE, one a line")
    if args.file is None:
        pairs = [[prompt] for prompt in args.prompt]
    else:
        pairs = [line.split("\t") for line in _lines(args.file)]
    if wrong := next((pair for pair in pairs if len(pair) > 2), None):
        raise OptionError(
            f"{args.file}: the line {chr(9).join(wrong)!r} has {len(wrong) - 1} tabs; expected one at most"
        )
    if args.escape:
        pairs = [[process_escapes(text) for text in pair] for pair in pairs]
    if args.reference is None:
        return [Prompt(*pair) for pair in pairs]
    if any(len(pair) > 1 for pair in pairs):
        raise OptionError(f"references are in {args.file} and in {args.reference}; leave one out")
    references = [read_file(args.reference)] if len(pairs) == 1 else _lines(args.reference)
    if len(references) != len(pairs):
        raise OptionError(f"{args.reference}: {len(references)} references for {len(pairs)} prompts; give one a line")
    return [Prompt(pair[0], reference) for pair, reference in zip(pairs, references, strict=True)]


def _lines(path: str) -> list[str]:
    """The lines of a file that are not empty."""
    lines = [line for line in read_file(path).splitlines() if line.strip()]
    if not lines:
        raise OptionError(f"{path}: there is no text in it")
    return lines


def _combinations(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments with one value of each list, all combinations, the last option changing first."""
    given = [option.dest for option in _LISTS if getattr(args, option.dest) is not None]
    return [
        argparse.Namespace(**{**vars(args), **dict(zip(given, values, strict=True))})
        for values in product(*(getattr(args, name) for name in given))
    ]


def _shown(args: argparse.Namespace) -> tuple[str, ...]:
    """The options that get a column: those that were given, and the temperature."""
    return tuple(option.dest for option in _LISTS if option.dest == "temp" or getattr(args, option.dest) is not None)


def _judge(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the judge in the model's place, and its own chat template."""
    other = {"model": args.judge, "hf_repo": None, "hf_file": None, "chat_template": None, "chat_template_file": None}
    return argparse.Namespace(**{**vars(args), **other})


def _scorer(args: argparse.Namespace, llm: "LLM", prompts: "list[Prompt]", corpus: list[str] | None) -> "Scorer | None":
    """What relevance is measured with, where it is not the default."""
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
    """Prints rows as they come, in one of the formats."""

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
        """End what was begun."""
        from minillama.measure.texts.text_quality_table import quality_foot

        if self._output == "json":
            write_text("[]\n" if self._last is None else "\n]\n")
        elif self._last is not None:
            write_text(quality_foot(self._last))
