"""Run pip in a child process, line by line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from minillama.errors import ResourceError
from minillama.printable_text import printable_line

PipRunner = Callable[[Sequence[str]], Iterator[str]]
_QUIET = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}


def run_pip(arguments: Sequence[str]) -> Iterator[str]:
    """The lines that pip prints; raises ResourceError with its last error line."""
    command = [sys.executable, "-m", "pip", *arguments]
    last = ""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        encoding="utf-8", errors="replace", env={**os.environ, **_QUIET},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in map(str.strip, process.stdout):
                last = line if line.lower().startswith("error") or not last.lower().startswith("error") else last
                yield line
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
    if process.returncode:
        raise ResourceError(
            f"pip {arguments[0]} ended with status {process.returncode} ({printable_line(last) or 'no message'}); "
            "check the network, and pip's index: pip config list"
        )
