"""Pieces of GBNF text: literals, sets, repetitions."""

import json
import re


def literal(value: str) -> str:
    """A text as a literal."""
    escaped = re.sub(r'["\\]', lambda match: "\\" + match[0], value).replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def json_text(value: object) -> str:
    """A value as JSON, as llama.cpp writes it: no blanks, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def set_member(code: int) -> str:
    """A character in a set."""
    character = chr(code)
    return character if character.isascii() and character.isalnum() else f"\\U{code:08X}"


def repeated(item: str, least: int, most: int | None) -> str:
    """A rule a number of times; None for no limit."""
    if most == 0:
        return ""
    short = {(0, 1): "?", (1, None): "+", (0, None): "*"}
    return item + short.get((least, most), f"{{{least},{'' if most is None else most}}}")


def separated(item: str, least: int, most: int | None) -> str:
    """A rule a number of times, with commas between."""
    if most == 0:
        return ""
    if (least, most) == (0, 1):
        return f"{item}?"
    rest = repeated(f'("," space {item})', max(least - 1, 0), None if most is None else most - 1)
    return f"{item} {rest}" if least else f"({item} {rest})?"
