"""Printable texts: without control characters, in lines of bounded length.

Names and values of a file may hold anything, such as escape sequences that control a terminal.
"""

import logging

MAX_LINE = 480  # characters; `minillama: error: ` comes before it
MAX_RECORD = 2000  # characters of a log record, which may list many names


def printable(text: str) -> str:
    """Escape control characters, line ends and invisible characters, such as ESC as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_line(text: str, limit: int = MAX_LINE) -> str:
    """One printable line; a longer text loses its middle, because its end has the fix."""
    if len(text) > 2 * limit:
        text = f"{text[:limit]}{text[-limit:]}"
    line = printable(text)
    if len(line) <= limit:
        return line
    tail = limit // 3
    return f"{line[: limit - tail - 5]} ... {line[-tail:]}"


class PrintableRecords(logging.Filter):
    """Make the message of each log record one printable line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable_line(record.getMessage(), MAX_RECORD), None
        return True
