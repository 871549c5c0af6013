"""One option of the command line, and how it becomes an argument of a parser."""

import argparse
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from minillama.cli.arguments.parser import Parser
from minillama.errors import UnsupportedError

logger = logging.getLogger("minillama")

Kind = Callable[[str], object]  # parses a value; raises ArgumentTypeError or ValueError

# Commands whose tools in llama.cpp share one table of options (its arg.cpp).
SHARED = "run cli serve perplexity imatrix tokenize"
MODEL_COMMANDS = "run cli serve perplexity imatrix"
ONE_TEXT = "run cli perplexity imatrix"  # commands that compute one text at a time


@dataclass(frozen=True)
class Option:
    """A command-line option; its first long name is the attribute of the parsed arguments."""

    names: tuple[str, ...]
    meaning: str
    kind: Kind | None = str  # parses the value; None: a switch
    default: object = None  # None: the library's own default
    variable: str = ""  # environment variables that set it, separated by blanks
    value: str = "N"  # placeholder in the help
    off: tuple[str, ...] = ()  # names that turn a switch off
    repeated: bool = False  # collect all occurrences instead of the last
    once_a_switch: bool = False  # older releases of llama.cpp have it without a value, which means on

    @property
    def dest(self) -> str:
        long = next((name for name in self.names if name.startswith("--")), self.names[0])
        return long.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class OtherOption:
    """An option of llama.cpp that minillama does not have: ignored with a warning, or refused."""

    names: str  # separated by blanks, like `off` and `commands`
    kind: Kind | None  # parses the value; None: a switch
    reason: str  # empty: it is ignored without a warning
    variable: str = ""
    off: str = ""  # names that turn a switch off
    commands: str = MODEL_COMMANDS
    silent: tuple[object, ...] = ()  # values that match what minillama does: neither a warning nor an error
    refused: bool = False  # ignoring it would change the output
    once_a_switch: bool = False
    values: int = 1  # number of values


def add_options(parser: Parser, title: str, options: Iterable[Option]) -> None:
    """Add options under a title of the help."""
    group = parser.add_argument_group(title)
    for option in options:
        names, dest, default, text = option.names, option.dest, option.default, _help(option)
        if option.kind is None:
            group.add_argument(*names, dest=dest, action="store_true", default=default, help=text)
            if option.off:
                hidden = argparse.SUPPRESS
                group.add_argument(*option.off, dest=dest, action="store_false", default=default, help=hidden)
        elif option.repeated:
            group.add_argument(
                *names, dest=dest, action="append", type=option.kind, metavar=option.value, help=text
            )  # fmt: skip
        else:
            bare = option.once_a_switch or None
            group.add_argument(
                *names, dest=dest, type=option.kind, default=default, metavar=option.value, help=text,
                nargs="?" if bare else None, const=bare,
            )  # fmt: skip
        for variable in option.variable.split():
            parser.add_variable(variable, names[-1], *option.off[-1:])


def add_other_options(parser: Parser, options: Iterable[OtherOption]) -> None:
    """Add options that are ignored or refused, hidden from the help."""
    for option in options:
        names, off = option.names.split(), option.off.split()
        count = "?" if option.once_a_switch else option.values if option.values > 1 else None
        _add_other(parser, option, names, 0 if option.kind is None else count, value=True)
        if off:
            _add_other(parser, option, off, 0, value=False)
        if option.variable:
            parser.add_variable(option.variable, names[-1], *off[-1:])


def _add_other(parser: Parser, option: OtherOption, names: list[str], count: str | int | None, *, value: bool) -> None:
    """value: the value of a switch."""
    dest = f"other_{option.names.split()[-1].lstrip('-').replace('-', '_')}"
    parser.add_argument(
        *names, action=_Other, option=option, type=option.kind, nargs=count, const=value, dest=dest,
        default=argparse.SUPPRESS, help=argparse.SUPPRESS,
    )  # fmt: skip


def _help(option: Option) -> str:
    text = option.meaning + (f" (off: {', '.join(option.off)})" if option.off else "")
    return text.replace("%", "%%")


class _Other(argparse.Action):
    """Warn that the option has no effect, or raise UnsupportedError if it is refused."""

    def __init__(self, *, option: OtherOption, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._option = option

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        option, value = self._option, self.const if self.nargs == 0 else values
        setattr(namespace, self.dest, value)
        silent = all(each in option.silent for each in (value if isinstance(value, tuple) else (value,)))
        if silent or not option.reason:
            return
        if option.refused:
            shown = option_string if option.silent else str(option_string).partition(" ")[0]
            raise UnsupportedError(f"{shown}: {option.reason}")
        logger.warning("%s has no effect: %s", option_string, option.reason)


def without_effect(options: Iterable[Option | OtherOption], reason: str) -> tuple[OtherOption, ...]:
    """Options that a command of llama.cpp takes, and that have no effect on it."""
    return tuple(
        replace(option, reason=reason, refused=False)
        if isinstance(option, OtherOption)
        else OtherOption(
            " ".join(option.names), option.kind, reason, option.variable.partition(" ")[0], " ".join(option.off),
            once_a_switch=option.once_a_switch,
        )
        for option in options
    )  # fmt: skip
