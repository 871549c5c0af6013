"""The translatable parts of markdown: paragraphs, headings, list items and rows of tables."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Lookup = Callable[[str], str | None]

_HEADING = re.compile(r"(#{1,6} +)(.*)")
_ITEM = re.compile(r"(\s*(?:[*+-]|\d+[.)]) +)(.*)")
_LATER_NUMBER = re.compile(r"\s*(?!1[.)])\d+[.)] +.*")  # begins an item only after another one
_SUMMARY = re.compile(r"(<details><summary>)(.*)(</summary>)")
_RULE = re.compile(r"\|[\s|:-]*\|?")  # the second line of a table, or a row without words
_FENCE = re.compile(r"\s*(```|~~~)")
_WORD = re.compile(r"[^\W\d_]{2}|[^\W\d_]\b.*[^\W\d_]")


@dataclass(frozen=True)
class Block:
    """Some lines of a cell: a message between prefix and suffix.

    Without a message the lines stay as they are."""

    kind: str
    lines: str
    message: str = ""
    prefix: str = ""
    suffix: str = ""


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a markdown cell in order.

    Their lines, joined by line ends, are the cell."""
    lines = text.split("\n")
    place = 0
    while place < len(lines):
        end, block = _next(lines, place)
        yield block
        place = end


def _next(lines: list[str], place: int) -> tuple[int, Block]:
    line = lines[place]
    if fence := _FENCE.match(line):
        return _until(lines, place, lambda text: text.strip() == fence[1])
    if line.startswith("$$"):
        return _until(lines, place, lambda text: text.endswith("$$"), single=len(line) > 2 and line.endswith("$$"))
    if match := _SUMMARY.fullmatch(line):
        return place + 1, Block("summary", line, match[2], match[1], match[3])
    if not line.strip() or line.startswith(("<", "    ")) or _RULE.fullmatch(line):
        return place + 1, Block("fixed", line)
    if match := _HEADING.fullmatch(line):
        return place + 1, _block("heading", [line], match[2], match[1])
    if line.startswith("|"):
        return place + 1, _block("row", [line], line, "")
    match = _ITEM.fullmatch(line)
    end = place + 1
    while end < len(lines) and _continues(lines[end], in_item=match is not None):
        end += 1
    prefix, first = (match[1], match[2]) if match else ("", line)
    kind = "item" if match else "paragraph"
    return end, _block(kind, lines[place:end], "\n".join([first, *lines[place + 1 : end]]), prefix)


def _until(lines: list[str], place: int, is_end: Callable[[str], bool], *, single: bool = False) -> tuple[int, Block]:
    """Lines that stay, up to the first one after `place` that ends them."""
    end = place + 1
    while not single and end < len(lines):
        end += 1
        if is_end(lines[end - 1]):
            break
    return end, Block("fixed", "\n".join(lines[place:end]))


def _continues(line: str, *, in_item: bool) -> bool:
    """True for a line that goes on with the paragraph or the item above it."""
    is_item = _ITEM.fullmatch(line) and (in_item or not _LATER_NUMBER.fullmatch(line))
    starts = line.startswith(("|", "<", "$$")) or _HEADING.fullmatch(line) or is_item
    return bool(line.strip()) and not starts and not _FENCE.match(line)


def _block(kind: str, lines: list[str], text: str, prefix: str) -> Block:
    message = " ".join(text.split())
    whole = "\n".join(lines)
    if not _WORD.search(message):
        return Block("fixed", whole)
    return Block(kind, whole, message, prefix)


def translated_markdown(text: str, look_up: Lookup, mark: str = "") -> str:
    """A cell with the translations of its blocks.

    A block without one keeps its lines, with `mark` at the end."""
    return "\n".join(_shown(block, look_up, mark) for block in blocks(text))


def _shown(block: Block, look_up: Lookup, mark: str) -> str:
    if not block.message:
        return block.lines
    found = look_up(block.message)
    if found is not None:
        return f"{block.prefix}{found}{block.suffix}"
    if not mark or block.kind == "summary":
        return block.lines
    if block.kind == "row" and block.lines.rstrip().endswith("|"):  # inside the last cell
        return f"{block.lines.rstrip()[:-1].rstrip()} {mark} |"
    return f"{block.lines} {mark}"
