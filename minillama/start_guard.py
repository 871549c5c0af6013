"""Ctrl-C while the command `minillama` imports its modules: exit at once, without a traceback.

In a notebook or a script, `import minillama` changes nothing. `cli.end_signals` takes over after the imports.
"""

import _signal as signal  # the module `signal` imports `enum`, which takes milliseconds
import os
import sys

_SCRIPTS = {"minillama", "minillama.exe"}  # the installed command


def guard_start() -> None:
    """Handle Ctrl-C, if this process is the command and Ctrl-C is not ignored."""
    if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))


def _is_command() -> bool:
    if sys.argv[:1] == ["-m"]:  # of `python -m`, until the module is found
        words = sys.orig_argv
        return "-m" in words and words[words.index("-m") + 1 :][:1] == ["minillama"]
    return os.path.basename(sys.argv[0] if sys.argv else "") in _SCRIPTS


guard_start()
