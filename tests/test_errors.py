"""The text of an error: one printable line of bounded length, whatever a name or a value holds."""

import pytest

from minillama.errors import MAX_LINE, FormatError, MinillamaError, printable_line, quoted


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tensor blk.0 is missing; fix it", "tensor blk.0 is missing; fix it"),
        ("日本語 é", "日本語 é"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31m red", r"\x1b[31m red"),
        ("\u202eltr \udcff", r"\u202eltr \udcff"),
    ],
)
def test_one_printable_line(text: str, line: str) -> None:
    assert str(FormatError(text)) == line
    assert printable_line(line) == line


def test_a_long_message_keeps_its_start_and_its_end() -> None:
    line = str(MinillamaError("key " + "\n" * 5000 + " is wrong; convert the model again"))
    assert line.startswith(r"key \n\n") and line.endswith("is wrong; convert the model again")
    assert len(line) == MAX_LINE


def test_quoted_values_are_short() -> None:
    assert quoted("a\nb") == r"'a\nb'"
    assert len(quoted(["x" * 10_000] * 10_000)) < 500
    assert len(quoted(10**100)) <= 64
