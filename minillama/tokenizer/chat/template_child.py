"""Main program of the child process that renders chat templates; `template_process.py` starts it.

It starts quickly because it imports only jinja2 and `jinja_sandbox.py`, not the package. After the line `ready`, each
line of stdin is a JSON object with `source` and `variables`, and stdout gets one with `text` or `error`. The process
ends with stdin, so also with its parent, and after an answer with `last`.
"""

import contextlib
import json
import math
import sys
import time

MEBIBYTE = 1 << 20
MAX_REASON = 1000  # characters


def main(seconds: float, megabytes: int, characters: int) -> None:
    """Answer until stdin ends."""
    from jinja_sandbox import TemplateError, render  # type: ignore[import-not-found]

    _limit("RLIMIT_AS", megabytes * MEBIBYTE)
    _limit("RLIMIT_DATA", megabytes * MEBIBYTE)
    _limit("RLIMIT_FSIZE", 0)  # writes no file
    _limit("RLIMIT_CORE", 0)
    _write(b"ready")
    for line in sys.stdin.buffer:
        # A template that does not end does so here if the parent is gone; otherwise the parent ends it sooner.
        _limit("RLIMIT_CPU", math.ceil(time.process_time() + seconds) + 1)
        try:
            request = json.loads(line)
            answer = {"text": render(request["source"], request["variables"], characters)}
            encoded = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except TemplateError as error:
            encoded = json.dumps({"error": str(error)[:MAX_REASON]}).encode()
        except RecursionError:
            encoded = json.dumps({"error": "gets messages that are nested too deeply"}).encode()
        except MemoryError:
            _write(json.dumps({"error": f"needs more than {megabytes} MB of memory", "last": True}).encode())
            return
        _write(encoded)


def _limit(name: str, most: int) -> None:
    """Set a soft limit of the system.

    macOS does not limit memory, and Windows has no limits; there the parent's limits remain.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
