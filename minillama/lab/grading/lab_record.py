"""What a learner predicted, measured and solved: one readable json file a lab, in `results/` beside the notebook."""

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from minillama import env

PACKAGES = ("minillama", "jax", "jaxlib", "numpy", "gguf")


def results_file(lab: str) -> Path:
    """Where the records of one lab are kept: in the folder the notebook runs in."""
    return Path.cwd() / "results" / f"lab{lab}.json"


def read(lab: str) -> dict[str, object]:
    """All records of one lab; empty when there are none yet, or when the file is not readable json."""
    try:
        content = json.loads(results_file(lab).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def section(lab: str, name: str) -> dict[str, object]:
    """One section of a lab's records: `predictions`, `measurements` or `checks`."""
    entries = read(lab).get(name, {})
    return entries if isinstance(entries, dict) else {}


def write(lab: str, name: str, entry: str, value: object) -> Path:
    """Store `value` as `entry` of the section `name`, with the machine, the date and the versions; return the file.

    The file is replaced in one step, so a kernel that dies while writing leaves the old one whole.
    """
    content = read(lab)
    entries = section(lab, name)
    entries[entry] = value
    content.update({name: entries, "lab": lab, "written": now(), "machine": machine(), "versions": versions()})
    path = results_file(lab)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )
    beside.replace(path)
    return path


def measurement(lab: str, entry: str, value: float, unit: str) -> float:
    """Store one measured number with its unit and return it, so that a cell can keep and use it in one line."""
    write(lab, "measurements", entry, {"value": float(value), "unit": unit, "written": now()})
    return value


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    return env.describe().as_dict()


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
