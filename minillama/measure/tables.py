"""Tables as text: Markdown with fixed column widths, and plain aligned columns."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


def display_width(text: str) -> int:
    """Columns of a text in a terminal; a CJK character has two."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text with blanks up to `width` columns.

    right: put them in front of it."""
    blanks = " " * (width - display_width(text))
    return blanks + text if right else text + blanks


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a Markdown table: heading, least width, and cell text."""

    heading: str
    width: int
    cell: Callable[[Row], str]
    left: bool = False

    def align(self, text: str) -> str:
        """Pad a cell to the column's width."""
        return text.ljust(self.width) if self.left else text.rjust(self.width)

    def rule(self) -> str:
        """The cell of the line under the headings, which states the alignment."""
        dashes = "-" * (self.width - 1)
        return f"{dashes}-" if self.left else f"{dashes}:"


def md_head(columns: Sequence[Column[Row]]) -> str:
    """The headings and the line under them."""
    headings = " | ".join(column.align(column.heading) for column in columns)
    return f"| {headings} |\n| {' | '.join(column.rule() for column in columns)} |\n"


def md_row(columns: Sequence[Column[Row]], row: Row) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(column.align(column.cell(row)) for column in columns)} |\n"


def md_table(columns: Sequence[Column[Row]], rows: Iterable[Row]) -> str:
    """A whole Markdown table."""
    return md_head(columns) + "".join(md_row(columns, row) for row in rows)


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Columns under headings and dashes; the columns numbered in `right` are right-aligned. Empty without rows."""
    if not rows:
        return ""
    right_aligned = set(right)
    widths = [max(display_width(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            padded(cell, width, right=at in right_aligned)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])
