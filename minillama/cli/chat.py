"""`minillama cli`: chat in the terminal (llama.cpp: llama-cli)."""

import argparse
import contextlib
import sys
from dataclasses import dataclass, field
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
from minillama.cli.arguments.prompt_text import read_file, read_prompt, read_system_prompt
from minillama.cli.output.answer_stream import show_stream
from minillama.cli.output.answer_writer import AnswerWriter
from minillama.cli.output.terminal import note, notes, show_prompt, turn_line, use_colour, write_text
from minillama.cli.translation.command_texts import error_text
from minillama.errors import MinillamaError, OptionError

if TYPE_CHECKING:
    from minillama.engine.llm import LLM
    from minillama.engine.result import Completion
    from minillama.engine.session import Session

DESCRIPTION = """\
Chat with a model. Ctrl-C stops an answer and keeps its text; at the prompt it exits.
A line that ends in \\ continues on the next one. Commands: /regen /clear /read FILE /exit
"""

COMMANDS = """\
  /regen      generate the last answer again
  /clear      clear the conversation
  /read FILE  add the text of a file to the next message
  /exit       exit (also Ctrl-D)"""

_OPTIONS = (
    Option(("-st", "--single-turn"), "one answer to -p, then exit", None, False),
    Option(("-mli", "--multiline-input"), r"Enter begins a new line; a line ending in \ sends", None, False),
    Option(("--show-timings",), "print speeds after each answer (default: on)", None, True, "LLAMA_ARG_SHOW_TIMINGS",
           off=("--no-show-timings",)),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("cli", help="chat with a model", description=DESCRIPTION)
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "conversation", llama_options.PROMPT + llama_options.CHAT + llama_options.GENERATION + _OPTIONS)
    add_options(parser, "guessed tokens", llama_options.DRAFT)
    add_options(parser, "sampling", llama_options.SAMPLING + llama_options.GRAMMAR)
    add_options(parser, "machine", llama_options.DEVICE + llama_options.CONTEXT + llama_options.CACHE)
    add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    add_options(parser, "output", llama_options.OUTPUT)
    add_ignored_options(parser, "cli")


@dataclass
class Conversation:
    """A conversation: messages for a chat template, or one growing text without a template."""

    llm: "LLM"
    session: "Session"
    system: str | None
    raw: bool
    variables: dict[str, object] = field(default_factory=dict)  # of the chat template
    messages: list[dict[str, str]] = field(default_factory=list)

    def encoded(self) -> list[int]:
        """Token ids of `rendered`."""
        if self.raw:
            return self.llm.tokenizer.encode(self.rendered())
        return self.llm.encode_chat(self.messages, **self.variables)

    def clear(self) -> None:
        """Remove all messages but the system message."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def remove_last_answer(self) -> bool:
        """Remove the last answer; false if there is none."""
        answered = bool(self.messages) and self.messages[-1]["role"] == "assistant"
        if answered:
            self.messages.pop()
        return answered

    def rendered(self) -> str:
        """The text that the model continues."""
        if self.raw:
            return "".join(message["content"] for message in self.messages)
        return self.llm.render(self.messages, **self.variables)


def run(args: argparse.Namespace) -> int:
    prompt = read_prompt(args)
    system = read_system_prompt(args)
    if args.single_turn and prompt is None and sys.stdin.isatty():
        raise OptionError("-st answers one prompt; give it with -p or -f")
    llm = load_model(args)
    raw = llm.template is None if args.conversation is None else not args.conversation or llm.template is None
    if raw and system is not None:
        raise OptionError("-sys needs a chat template; this model has none, give one with --chat-template")
    conversation = Conversation(llm, llm.session(), system, raw, template_variables(args))
    conversation.clear()
    if not is_quiet(args):
        _print_header(llm, raw)
    message, before = prompt, ""
    while True:
        if message is None:
            message = _read_message(args)
            if message is None:
                return 0
        if message.startswith("/read "):
            before += _read_for_next(message.removeprefix("/read ").strip())
            message = None
            continue
        if message.strip() == "/exit":
            return 0
        if _needs_answer(message, conversation):
            if message.strip() != "/regen":
                conversation.messages.append({"role": "user", "content": before + message})
                before = ""
            _answer(args, conversation)
            if args.single_turn:
                return 0
        message = None


def _needs_answer(message: str, conversation: Conversation) -> bool:
    """Run a command other than /read and /exit; true if the model must answer."""
    match message.strip():
        case "":
            return False
        case "/clear":
            conversation.clear()
            note("the conversation is cleared")
            return False
        case "/help":
            notes(COMMANDS)
            return False
        case "/regen":
            if not conversation.remove_last_answer():
                note("there is no answer yet")
                return False
    return True


def _answer(args: argparse.Namespace, conversation: Conversation) -> None:
    """Answer the last message; after an error, remove the message and continue."""
    try:
        if args.verbose_prompt:
            tokenizer = conversation.llm.tokenizer
            text = conversation.rendered()
            ids = conversation.encoded()
            show_prompt(text, ids, lambda token: tokenizer.piece(token, special=True))
        completion = _stream(args, conversation)
    except MinillamaError as error:
        note(f"minillama: error: {error_text(str(error))}")
        conversation.messages.pop()
        return
    conversation.messages.append(completion.message)
    if completion.reason.value == "length":
        note("the context is full; use /clear, enlarge it with -c N, or start with --context-shift")
    if args.show_timings and not is_quiet(args):
        note(turn_line(completion.timings))


def _stream(args: argparse.Namespace, conversation: Conversation) -> "Completion":
    chosen = generate_options(args, conversation.llm)
    decoder = conversation.llm.tokenizer.decoder(special=True) if args.special else None
    if conversation.raw:
        stream = conversation.llm.stream(conversation.rendered(), session=conversation.session, **chosen)
    else:
        stream = conversation.llm.chat_stream(
            conversation.messages,
            chat_template_kwargs=conversation.variables,
            reasoning_format=reasoning_format(args),
            reasoning_budget=args.reasoning_budget,
            reasoning_budget_message=args.reasoning_budget_message,
            session=conversation.session,
            **chosen,
        )
    return show_stream(stream, AnswerWriter(use_colour(args.color)), decoder)


def _read_message(args: argparse.Namespace) -> str | None:
    r"""Read a message; None at the end of input.

    Lines that end in \ continue on the next line; with -mli all others do.
    """
    lines: list[str] = []
    while True:
        line = _read_line(args, first=not lines)
        if line is None:
            return "\n".join(lines) if lines else None
        more = line.endswith("\\")
        lines.append(line.removesuffix("\\"))
        if more == args.multiline_input:
            return "\n".join(lines)


def _read_line(args: argparse.Namespace, *, first: bool) -> str | None:
    if not sys.stdin.isatty():
        line = ""
        with contextlib.suppress(OSError):  # closed
            line = sys.stdin.readline()
        return line.removesuffix("\n") if line else None
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401  (line editing and history for input)
    coloured = use_colour(args.color)
    if first:
        write_text("\n")
    mark = "> " if first else "  "
    try:
        # \x01 and \x02 mark characters without width for readline.
        return input(f"\x01\x1b[1;32m\x02{mark}" if coloured else mark)
    except (EOFError, KeyboardInterrupt):
        write_text("\n")
        return None
    finally:
        if coloured:
            write_text("\x1b[0m")


def _read_for_next(path: str) -> str:
    try:
        text = read_file(path)
    except MinillamaError as error:
        note(f"minillama: error: {error_text(str(error))}")
        return ""
    note(f"read {len(text)} characters of {path}; they are added to your next message")
    return text + "\n"


def _print_header(llm: "LLM", raw: bool) -> None:
    note(f"model   : {llm.path.name}, context of {llm.ctx_size} tokens")
    if raw:
        note("          no chat template: the model continues your text")
    notes(f"commands:\n{COMMANDS}")
