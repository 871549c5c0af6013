"""Terminal output: text on stdout, timings and notes on stderr, Ctrl-C."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from minillama.printable_text import printable

if TYPE_CHECKING:
    from minillama.engine.result import Completion, Timings

INTERRUPT_SECONDS = 1.0  # from Ctrl-C until an answer that has not stopped between two tokens is stopped anyway
INTERRUPTED = 130  # exit status after Ctrl-C, as shells report it
TERMINATED = 143  # exit status after SIGTERM
BROKEN_PIPE = 141  # exit status when the reader of stdout has closed it

REASONS = {
    "stop": "the model ended its answer",
    "word": "a stop string was generated",
    "limit": "-n tokens were generated",
    "length": "the context is full (enlarge it with -c, or use --context-shift)",
    "interrupted": "interrupted",
}


class WaitEndedError(KeyboardInterrupt):
    """The end of a wait, some time after the first Ctrl-C."""


class Interrupt:
    """Context manager: the first Ctrl-C only sets `requested`, a second one raises KeyboardInterrupt.

    An answer then stops between two tokens, and the computed state stays usable. Under nohup, Ctrl-C stays ignored.
    wait: seconds after the first Ctrl-C until a block that has not stopped, such as a wait for a worker, gets
    WaitEndedError; None for no limit.
    """

    def __init__(self, wait: float | None = None) -> None:
        self.requested = False
        self._wait = wait if hasattr(signal, "setitimer") else None

    def __enter__(self) -> "Interrupt":
        self._previous = signal.getsignal(signal.SIGINT)
        if self._previous is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)
        if self._wait is not None:
            self._alarm = signal.signal(signal.SIGALRM, self._end_wait)
        return self

    def __exit__(self, *_: object) -> None:
        if self._wait is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._alarm)
        signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._wait is not None:
            signal.setitimer(signal.ITIMER_REAL, self._wait)

    def _end_wait(self, number: int, frame: FrameType | None) -> None:
        raise WaitEndedError


def write_text(text: str) -> None:
    """Write text to stdout and flush."""
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def use_colour(choice: bool | None) -> bool:
    """Evaluate --color; None (auto) is on if stdout is a terminal.

    NO_COLOR, and a TERM that is `dumb`, turn auto off.
    """
    if choice is not None:
        return choice
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def note(line: str = "") -> None:
    """Print a line on stderr; control characters are escaped."""
    print(printable(line), file=sys.stderr, flush=True)


def notes(text: str) -> None:
    """Print the lines of a text on stderr."""
    for line in text.split("\n"):
        note(line)


def end_line(text: str) -> None:
    """Write a line end if the text does not end with one."""
    if not text.endswith("\n"):
        write_text("\n")


def show_prompt(rendered: str, ids: list[int], piece: Callable[[int], bytes]) -> None:
    """Print the rendered prompt and its tokens on stderr."""
    note(f"prompt: {rendered!r}")
    note(f"number of tokens in prompt = {len(ids)}")
    for token in ids:
        note(f"{token:6d} -> '{piece(token).decode('utf-8', errors='replace')}'")


def timing_lines(timings: "Timings") -> list[str]:
    """llama.cpp's block of timings, plus the compile time."""
    steps = len(timings.token_seconds)
    steps_ms = 1000 * sum(timings.token_seconds)
    prompt_ms = 1000 * timings.prompt
    prompt_each, step_each = _each(prompt_ms, timings.prompt_tokens), _each(steps_ms, steps)
    tokens = timings.prompt_tokens + steps  # as llama.cpp counts: the first token belongs to the prompt
    drafts = [f"          drafts = {draft_counts(timings)}"] if timings.drafted_tokens else []
    return [
        f"       load time = {1000 * timings.load:10.2f} ms",
        f"    compile time = {1000 * timings.compile:10.2f} ms",
        f"prompt eval time = {prompt_ms:10.2f} ms / {timings.prompt_tokens:5d} tokens "
        f"({prompt_each:8.2f} ms per token, {timings.prompt_per_second:8.2f} tokens per second)",
        f"       eval time = {steps_ms:10.2f} ms / {steps:5d} runs   "
        f"({step_each:8.2f} ms per token, {timings.generated_per_second:8.2f} tokens per second)",
        *drafts,
        f"      total time = {1000 * timings.total:10.2f} ms / {tokens:5d} tokens",
    ]


def show_timings(completion: "Completion") -> None:
    """Print the timings of an answer and its stop reason on stderr."""
    note()
    for line in timing_lines(completion.timings):
        note(f"minillama: {line}")
    note(f"minillama:       stopped as {REASONS[completion.reason.value]}")


def turn_line(timings: "Timings") -> str:
    """llama-cli's line of speeds after each answer."""
    speeds = f"Prompt: {timings.prompt_per_second:.1f} t/s | Generation: {timings.generated_per_second:.1f} t/s"
    return f"[ {speeds} | Drafts: {draft_counts(timings)} ]" if timings.drafted_tokens else f"[ {speeds} ]"


def draft_counts(timings: "Timings") -> str:
    """Drafted and accepted tokens, under llama.cpp's names."""
    accepted = f"n_accept {timings.accepted_tokens}, accept {100 * timings.accept_rate:.1f} %"
    return f"n_drafted {timings.drafted_tokens}, {accepted}"


def _each(total: float, count: int) -> float:
    return total / count if count else 0.0
