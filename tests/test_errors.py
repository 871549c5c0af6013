"""The text of an error: one printable line of bounded length, whatever a name or a value holds."""

import logging
import subprocess
import sys

import pytest

from minillama.cli import main
from minillama.cli.output.terminal import note, notes
from minillama.errors import FormatError, MinillamaError, quoted
from minillama.printable_text import MAX_LINE, MAX_RECORD, printable_line


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


@pytest.mark.parametrize("count", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 10**7])
@pytest.mark.parametrize("letter", ["x", "\x1b"])
def test_lines_are_bounded(count: int, letter: str) -> None:
    line = printable_line("start " + letter * (count - 10) + " end")
    assert len(line) == count if letter == "x" and count <= MAX_LINE else len(line) == MAX_LINE
    assert line.startswith("start ") and line.endswith(" end") and line.isprintable()


def test_log_records_and_notes(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("minillama").warning("%s has no effect: %d", "\x1b[2J\n" + "x" * 10_000, 3)
    (message,) = caplog.messages
    assert message.startswith(r"\x1b[2J\nxxx") and message.endswith("has no effect: 3") and len(message) == MAX_RECORD
    capsys.readouterr()  # the record's line, if a test before has called the command line
    note("\x1b[2J \r two\nlines")
    notes("one\n\ttwo")
    assert capsys.readouterr().err == "\\x1b[2J \\r two\\nlines\none\n\\ttwo\n"


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "a\n\x1b[2J" + "x" * 200],
        ["run", "-p", "hi", "-m", "\x1b[2J"],
        ["run", "-p", "hi", "--chat-template", "{{ raise_exception('\x1b[2J' * 1000) }}"],
        ["run", "-p", "hi", "--samplers", "\x1b" * 1000],
        ["\x1b[2J\n"],
        ["run", "--\x1b[2J"],
        ["synth", "\x9b" * 10_000],
    ],
)
def test_errors_of_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.isprintable() and line.startswith("minillama: error: ") and len(line) <= 500


def test_warnings_of_libraries_are_one_line() -> None:
    program = (
        "import sys, warnings; sys.argv[:] = ['minillama', 'synth', 'tiny']; from minillama.cli import entry, synth; "
    )
    program += "synth.run = lambda args: warnings.warn('two\\nlines') or 0; entry()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "minillama: warning: two\\nlines\n"


def test_quoted_values_are_short() -> None:
    assert quoted("a\nb") == r"'a\nb'"
    assert len(quoted(["x" * 10_000] * 10_000)) < 500
    assert len(quoted(10**100)) <= 64
