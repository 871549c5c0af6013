"""One lab's results file: entries of all kernels merged, nothing lost, no exception.

A damaged file is kept as `.bad`. Entries that cannot be written stay in the memory of this kernel, and the next write
tries them again.
"""

import atexit
import json
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from minillama.atomic_file import atomic_write, check_target, set_aside
from minillama.errors import MinillamaError, first_line

LARGEST = 32 << 20  # bytes of a results file; the figures of a lab take some hundred kilobytes
LOCK_SECONDS = 10.0  # another kernel holds the lock for milliseconds
SECTIONS = (
    "predictions",
    "changes",
    "skipped",
    "measurements",
    "checks",
    "dots",
    "roofline",
    "pictures",
    "texts",
    "decisions",
)

Content = dict[str, object]


@dataclass
class _Unsaved:
    """Entries of this kernel that are not in the file yet, by section and name."""

    facts: Callable[[], Mapping[str, object]]
    entries: dict[tuple[str, str], object] = field(default_factory=dict)


_unsaved: dict[Path, _Unsaved] = {}
_said: dict[Path, set[str]] = {}  # the lines about each file since it was written last
_threads = threading.RLock()  # panels write from threads


def store(path: Path, section: str, entry: str, value: object, facts: Callable[[], Mapping[str, object]]) -> None:
    """Set one entry in the file, or keep it in memory and print one line.

    facts: returns the file's other values, such as the time of writing.
    """
    with _threads:
        _unsaved.setdefault(path, _Unsaved(facts)).entries[section, entry] = value
        save_all()


@atexit.register
def save_all() -> None:
    """Try to write everything that is still in memory only."""
    with _threads:
        for path in list(_unsaved):
            _save(path)


def load(path: Path) -> Content:
    """The file's content with this kernel's unsaved entries; without the file's if it is damaged."""
    with _threads:
        try:
            content = parse(path)
        except (OSError, ValueError) as error:
            _say(path, f"{path} {reason(error)}; it is not used")
            content = {}
        return merged(path, content)


def merged(path: Path, content: Content) -> Content:
    """`content` with the unsaved entries of this kernel."""
    made = {name: dict(value) if isinstance(value, dict) else value for name, value in content.items()}
    if (unsaved := _unsaved.get(path)) is not None:
        for (section, entry), value in unsaved.entries.items():
            made.setdefault(section, {})[entry] = value  # type: ignore[index]
    return made


def unsaved_files(folder: Path) -> list[Path]:
    """Files of a folder that have entries in memory only."""
    return [path for path in list(_unsaved) if path.parent == absolute(folder)]


def absolute(path: Path) -> Path:
    """The path from the root; itself if the working folder was deleted."""
    try:
        return path.absolute()
    except OSError:
        return path


def parse(path: Path) -> Content:
    """The content of a results file; empty if there is no file.

    Raises OSError for an unreadable file, ValueError for a damaged one.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    if not stat.S_ISREG(status.st_mode):
        raise OSError("is not a regular file")
    if status.st_size > LARGEST:
        raise ValueError(f"has more than {LARGEST >> 20} MB, too much for results")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not readable json ({first_line(error, limit=100)})") from None
    groups = (content.get(name, {}) for name in SECTIONS) if isinstance(content, dict) else (None,)
    if not all(isinstance(group, dict) for group in groups):
        raise ValueError("is not what a lab writes")
    return content


def reason(error: BaseException) -> str:
    """An error of a file in a few words."""
    cause = error.__cause__ or error
    return getattr(cause, "strerror", None) or first_line(cause)


def _save(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(".lock"), timeout=LOCK_SECONDS):
            content = merged(path, _undamaged(check_target(path)))
            text = json.dumps(
                content | dict(_unsaved[path].facts()), indent=1, sort_keys=True, ensure_ascii=False, default=str
            )
            with atomic_write(path) as file:
                file.write(text.encode("utf-8", "backslashreplace") + b"\n")  # json's escapes of lone surrogates
    except (OSError, MinillamaError) as error:
        count = len(_unsaved[path].entries)
        _say(path, f"{path} is not written ({reason(error)}); results stay in this notebook's memory, {count} now")
    else:
        del _unsaved[path]
        _said.pop(path, None)


def _undamaged(path: Path) -> Content:
    """The content of the file to replace; a damaged file is set aside."""
    try:
        return parse(path)
    except ValueError as error:
        kept = set_aside(path).name
        print(f"{path} {reason(error)}; it is kept as {kept}, and a new file begins", file=sys.stderr)
        return {}


def _say(path: Path, line: str) -> None:
    """Print a line about a file, but not twice."""
    sentence, said = line.partition(";")[0], _said.setdefault(path, set())
    if sentence not in said:
        said.add(sentence)
        print(line, file=sys.stderr)
