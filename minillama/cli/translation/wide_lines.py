"""Lines of Chinese: by their width in a terminal, and broken between characters."""

import re

from minillama.measure.tables import display_width

# A short remark in parentheses, a word in Latin letters or one wide character, each with the punctuation that may not
# begin or end a line.
_UNIT = re.compile(r"\s+|(?:（[^（）]{1,24}）|[（“《]*(?:[!-~\u00a0-\u024f]+|.))[，。；：、）”》？！…]*", re.DOTALL)


def wide_lines(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` columns.

    A longer word has a line of its own.
    """
    lines, line = [], ""
    for unit in _UNIT.findall(" ".join(text.split())):
        if display_width((line + unit).rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line = ""
        line = line + unit if line else unit.lstrip()
    return [*lines, line.rstrip()] if line.strip() else lines
