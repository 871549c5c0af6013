"""llama.cpp's argument syntax on top of argparse.

Long names may have underscores, any value may begin with a dash, the last of a repeated option wins, environment
variables set what the command line does not, and a wrong argument gives a one-line error.
"""

import argparse
import difflib
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from minillama import __version__
from minillama.cli.arguments.values import FALSE, TRUE, switch
from minillama.cli.translation.command_texts import help_text
from minillama.errors import OptionError

logger = logging.getLogger("minillama")

_PREFIX, _NEGATED = "LLAMA_ARG_", "LLAMA_ARG_NO_"
_UNPREFIXED = {"LLAMA_API_KEY"}
USAGE = "usage: "  # argparse's word
_SHOWN = 60  # characters of a value in a message


class UnknownOptionError(OptionError):
    """An option that the command does not have; the message suggests a similar one."""

    def __init__(self, name: str, known: Iterable[str], program: str) -> None:
        super().__init__(name)
        self.name, self.known, self.program = name, known, program

    def __str__(self) -> str:
        near = difflib.get_close_matches(self.name[:_SHOWN], self.known, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"invalid argument: {shown_value(self.name)}{meant}; see {self.program} --help"


class Variable(NamedTuple):
    """The options that an environment variable stands for."""

    name: str
    off: str | None  # the option that turns a switch off


class Parser(argparse.ArgumentParser):
    """An argument parser that gives each option its next words, like llama.cpp.

    argparse guesses instead: it reads `-ngx` as `-n gx`, and refuses `-p "- a list"`. It keeps the help, the
    positional words and the subcommands.
    """

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]
        self.add_argument("--usage", action="help", help=argparse.SUPPRESS)
        self.add_argument("--version", action="version", version=f"minillama {__version__}", help="show the version")
        self.reports_variables = False  # warn of LLAMA_ARG_* variables without an effect on this command
        self._variables: dict[str, Variable] = {}

    def add_variable(self, variable: str, name: str, off: str | None = None) -> None:
        """Let an environment variable set the option `name`; `off` turns it off."""
        self._variables[variable] = Variable(name, off)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse options, then positional words with argparse; raises OptionError for wrong ones."""
        namespace = argparse.Namespace() if namespace is None else namespace
        given: set[str] = set()
        positional = self._read_options(deque(sys.argv[1:] if args is None else args), namespace, given)
        self._read_variables(namespace, given)
        namespace, unknown = super().parse_known_args(positional, namespace)
        if unknown:
            word = next((word for word in unknown if word != "--"), "--")
            self.error(f"{shown_value(word)}: one word too many")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Raise OptionError instead of printing the usage."""
        raise OptionError(f"{message}; see {self.prog} --help")

    def _read_options(self, words: deque[str], namespace: argparse.Namespace, given: set[str]) -> list[str]:
        """Set the options in the namespace, and return the positional words."""
        positional: list[str] = []
        while words:
            word = words.popleft()
            if word == "--":
                positional += words
                break
            if not word.startswith("-") or word == "-" or _is_number(word):
                if self._subparsers is not None:  # a command's name: its own parser reads the rest
                    return [word, *words]
                positional.append(word)
                continue
            name, equals, value = word.partition("=")
            action = self._find(name)
            if action.dest in given and type(action) is argparse._StoreAction:
                logger.warning("%s is given more than once; the last one counts", name)
            given.add(action.dest)
            self._set(action, namespace, name, [value] if equals else self._take(action, name, words))
        return ["--", *positional] if positional else []

    def _find(self, name: str) -> argparse.Action:
        """The option of a name; long ones may have underscores."""
        action = self._option_string_actions.get(name.replace("_", "-") if name.startswith("--") else name)
        if action is None:
            raise UnknownOptionError(name, list(self._option_string_actions), self.prog)
        return action

    def _take(self, action: argparse.Action, name: str, words: deque[str]) -> list[str]:
        """Take the values of an option from the words."""
        if action.nargs == "?" and (not words or (words[0].startswith("-") and not _is_value(action, words[0]))):
            return []
        count = action.nargs if isinstance(action.nargs, int) else 1
        if len(words) < count:
            self.error(f"{name}: expected {'a value' if count == 1 else f'{count} values'}")
        return [words.popleft() for _ in range(count)]

    def _set(self, action: argparse.Action, namespace: argparse.Namespace, name: str, texts: list[str]) -> None:
        """Parse the values of an option, and run its action; `name` is for messages."""
        joint = "" if name.endswith("=") else " "
        shown = joint.join([name, *map(shown_value, texts)])
        if action.nargs == 0 and texts:
            self.error(f"{name} takes no value, but {shown_value(texts[0])} is given")
        try:
            values = [action.type(text) if callable(action.type) else text for text in texts]
        except (argparse.ArgumentTypeError, ValueError) as error:
            self.error(f"{shown}: {error}")
        bare = action.const if action.nargs == "?" else []
        action(self, namespace, tuple(values) if len(values) > 1 else values[0] if values else bare, shown)

    def _read_variables(self, namespace: argparse.Namespace, given: set[str]) -> None:
        """Set the options that only the environment gives."""
        for variable, (name, off) in self._variables.items():
            action = self._option_string_actions[name]
            negated = variable.replace(_PREFIX, _NEGATED)
            if action.dest in given:
                continue
            if off is not None and negated in os.environ:  # with any value, as in llama.cpp
                given.add(action.dest)
                self._option_string_actions[off](self, namespace, [], negated)
            elif (text := os.environ.get(variable)) is not None:
                given.add(action.dest)
                if action.nargs == 0:
                    self._set_switch(variable, text, action, off, namespace)
                else:
                    self._set(action, namespace, f"{variable}=", [text])
        if self.reports_variables:
            self._report_variables()

    def _set_switch(
        self, variable: str, text: str, action: argparse.Action, off: str | None, namespace: argparse.Namespace
    ) -> None:
        """Turn a switch on or off.

        llama.cpp ignores other words if it cannot be turned off.
        """
        shown = f"{variable}={shown_value(text)}"
        if off is None and text not in TRUE:
            if text not in FALSE:
                logger.warning("%s has no effect: use on or off", shown)
            return
        try:
            action = action if switch(text) else self._option_string_actions[str(off)]
        except argparse.ArgumentTypeError as error:
            self.error(f"{shown}: {error}")
        action(self, namespace, [], shown)

    def _report_variables(self) -> None:
        """Warn of the variables of llama.cpp that no option of this command has."""
        negated = {variable.replace(_PREFIX, _NEGATED) for variable, (_, off) in self._variables.items() if off}
        theirs = {name for name in os.environ if name.startswith(_PREFIX) or name in _UNPREFIXED}
        unused = sorted(theirs - self._variables.keys() - negated)
        if unused:
            more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
            logger.warning("%s%s: no effect on %s", ", ".join(map(shown_value, unused[:8])), more, self.prog)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with all names of an option in one column, and the value's placeholder once.

    All texts are in the user's language.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)
        self._wide_headings: set[str] = set()

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, help_text(USAGE) if prefix is None else prefix)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None) -> str:
        text = super()._format_usage(usage, actions, groups, prefix)
        wider = sum(not character.isascii() for character in prefix or "")  # wide characters take two columns
        return text.replace("\n ", f"\n {' ' * wider}")

    def start_section(self, heading: str | None) -> None:
        shown = heading and help_text(heading)
        if shown and not shown.isascii():
            self._wide_headings.add(shown)
        super().start_section(shown)

    def format_help(self) -> str:
        text = super().format_help()
        for heading in self._wide_headings:
            text = text.replace(f"\n{heading}:\n", f"\n{heading}：\n")
        return text

    def add_text(self, text: str | None) -> None:
        super().add_text(text and "\n\n".join(help_text(paragraph) for paragraph in text.split("\n\n")))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and help_text(action.help)

    def _split_lines(self, text: str, width: int) -> list[str]:
        if text.isascii():
            return super()._split_lines(text, width)
        from minillama.cli.translation.wide_lines import wide_lines

        return wide_lines(text, width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        return names if action.nargs == 0 else f"{names} {self._format_args(action, action.dest.upper())}"


def shown_value(text: str) -> str:
    """A value in a message, quoted if it is empty, long or has blanks."""
    if text and text.isprintable() and " " not in text and len(text) <= _SHOWN:
        return text
    return repr(text[:_SHOWN]) + ("..." if len(text) > _SHOWN else "")


def _is_value(action: argparse.Action, word: str) -> bool:
    try:
        action.type(word)  # type: ignore[operator]
    except (argparse.ArgumentTypeError, ValueError):
        return False
    return True


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
