"""llama.cpp's argument syntax on top of argparse.

Long names may have underscores, any value may begin with a dash, the last of a repeated option wins, and a wrong
argument gives a one-line error.
"""

import argparse
import difflib
import logging
import sys
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from minillama.errors import OptionError

logger = logging.getLogger("minillama")


class Parser(argparse.ArgumentParser):
    """An argument parser that pairs each option name with the next word, like llama.cpp.

    argparse guesses instead: it reads `-ngx` as `-n gx`, and refuses `-p "- a list"`.
    """

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Pair names with values, then parse with argparse; raises OptionError for unknown options."""
        words = sys.argv[1:] if args is None else list(args)
        namespace, unknown = super().parse_known_args(self._pair(words), namespace)
        if unknown:
            self.error(f"invalid argument: {unknown[0]}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Raise OptionError instead of printing the usage."""
        raise OptionError(f"{message}; see {self.prog} --help")

    def _pair(self, words: list[str]) -> list[str]:
        """Join each option with its value (`-n 3` becomes `-n=3`), and move positional words to the end."""
        paired: list[str] = []
        positional: list[str] = []
        seen: set[str] = set()
        rest = deque(words)
        while rest:
            word = rest.popleft()
            if word == "--":
                positional += rest
                break
            if not word.startswith("-") or word == "-" or _is_number(word):
                if self._subparsers is not None:  # a command's name: its own parser reads the rest
                    return [*paired, word, *rest]
                positional.append(word)
                continue
            name, equals, value = word.partition("=")
            if name.startswith("--"):
                name = name.replace("_", "-")
            action = self._option_string_actions.get(name)
            if action is None:
                self.error(f"invalid argument: {word}{self._suggestion(name)}")
            if action.dest in seen and action.nargs is None and not isinstance(action, argparse._AppendAction):
                logger.warning("%s is given more than once; the last one counts", name)
            seen.add(action.dest)
            takes_next = action.nargs is None or (action.nargs == "?" and bool(rest) and not rest[0].startswith("-"))
            if takes_next and not equals:
                if not rest:
                    self.error(f"argument {name}: expected a value")
                equals, value = "=", rest.popleft()
            paired.append(f"{name}={value}" if equals else name)
        return [*paired, "--", *positional] if positional else paired

    def _suggestion(self, name: str) -> str:
        near = difflib.get_close_matches(name, list(self._option_string_actions), n=1)
        return f" (did you mean {near[0]}?)" if near else ""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with all names of an option in one column, and the value's placeholder once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        return names if action.nargs == 0 else f"{names} {self._format_args(action, action.dest.upper())}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
