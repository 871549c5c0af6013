"""`minillama run`: answer one prompt and exit (llama.cpp: llama-completion)."""

import argparse
import sys
from typing import TYPE_CHECKING

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.ignored_options import add_ignored_options
from minillama.cli.arguments.model_from_args import (
    generate_options,
    is_quiet,
    load_model,
    reasoning_format,
    template_variables,
)
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.prompt_text import read_prompt, read_stdin, read_system_prompt
from minillama.cli.output.answer_stream import show_stream
from minillama.cli.output.answer_writer import AnswerWriter
from minillama.cli.output.terminal import note, show_prompt, show_timings, use_colour, write_text
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.engine.llm import LLM

DESCRIPTION = """\
Answer one prompt and exit. A model with a chat template gets the prompt as a message, and only its answer is printed.
With -no-cnv, or without a template, the model continues the prompt, which is printed first.
"""

_DISPLAY = (
    Option(("--display-prompt",), "print the prompt before its continuation (default: on)", None, True,
           off=("--no-display-prompt",)),
    Option(("-st", "--single-turn"), "ignored: there is always a single turn", None, False),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("run", help="answer one prompt and exit", description=DESCRIPTION)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the prompt, instead of -p")
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "prompt and answer", llama_options.PROMPT + llama_options.GENERATION + _DISPLAY)
    add_options(parser, "guessed tokens", llama_options.DRAFT)
    add_options(parser, "chat", llama_options.CHAT)
    add_options(parser, "sampling", llama_options.SAMPLING + llama_options.GRAMMAR)
    add_options(parser, "machine", llama_options.DEVICE + llama_options.CONTEXT + llama_options.CACHE)
    add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    add_options(parser, "output", llama_options.OUTPUT)
    add_ignored_options(parser, "run")


def run(args: argparse.Namespace) -> int:
    prompt = read_prompt(args, args.words)
    if prompt is None and not sys.stdin.isatty():
        prompt = read_stdin()
    if prompt is None:
        raise OptionError("no prompt; give one with -p, -f or a pipe, or chat with: minillama cli")
    system = read_system_prompt(args)
    llm = load_model(args)
    raw = _is_raw(args, llm)
    if raw and system is not None:
        raise OptionError("-sys needs a chat template; this model has none, give one with --chat-template")
    variables = template_variables(args)
    if args.verbose_prompt:
        rendered = prompt if raw else llm.render(_messages(system, prompt), **variables)
        ids = llm.tokenizer.encode(prompt) if raw else llm.encode_chat(_messages(system, prompt), **variables)
        show_prompt(rendered, ids, lambda token: llm.tokenizer.piece(token, special=True))
    if raw and args.display_prompt:
        write_text(f"\x1b[1;32m{prompt}\x1b[0m" if use_colour(args.color) else prompt)

    chosen = generate_options(args, llm)
    if raw:
        stream = llm.stream(prompt, **chosen)
    else:
        form = reasoning_format(args)
        messages = _messages(system, prompt)
        stream = llm.chat_stream(
            messages,
            chat_template_kwargs=variables,
            reasoning_format=form,
            reasoning_budget=args.reasoning_budget,
            reasoning_budget_message=args.reasoning_budget_message,
            **chosen,
        )
    decoder = llm.tokenizer.decoder(special=True) if args.special else None
    completion = show_stream(stream, AnswerWriter(use_colour(args.color)), decoder)
    if args.perf and not is_quiet(args):
        show_timings(completion)
    return 130 if completion.reason.value == "interrupted" else 0


def _is_raw(args: argparse.Namespace, llm: "LLM") -> bool:
    """True if the prompt is continued as text: with -no-cnv, or without a chat template."""
    if args.conversation is None:
        return llm.template is None
    if args.conversation and llm.template is None:
        note("minillama: warning: -cnv: this model has no chat template, so the prompt is continued as text")
    return not args.conversation or llm.template is None


def _messages(system: str | None, prompt: str) -> list[dict[str, str]]:
    user = {"role": "user", "content": prompt}
    return [user] if system is None else [{"role": "system", "content": system}, user]
