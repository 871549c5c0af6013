"""Griffe extension: show the parameter lines of docstrings as lists.

A line of the form `name: text` or `name, name: text` and its continuation become a list item.
"""

import re
from typing import Any

import griffe

PARAMETER = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")


def as_lists(text: str) -> str:
    """Rewrite parameter lines as a Markdown list; a `Raises` line ends it."""
    lines: list[str] = []
    in_list = False
    for line in text.split("\n"):
        if match := PARAMETER.match(line):
            names = ", ".join(f"`{name}`" for name in match[1].split(", "))
            lines += [] if in_list else [""]
            lines.append(f"- {names}: {line[match.end() :]}")
            in_list = True
        elif in_list and (not line or line.startswith("Raises ")):
            lines += ["", line]
            in_list = False
        else:
            lines.append(f"    {line}" if in_list else line)
    return "\n".join(lines)


class ParameterLists(griffe.Extension):
    """Apply `as_lists` to every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_lists(obj.docstring.value)
