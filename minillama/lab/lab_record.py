"""Records of predictions, measurements and checks: one JSON file per lab.

The files are in `results/`, in the folder of the notebook."""

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from minillama import env

PACKAGES = ("minillama", "jax", "jaxlib", "numpy", "gguf")


def results_file(lab: str) -> Path:
    """Path of a lab's records, in the notebook's working folder."""
    return Path.cwd() / "results" / f"lab{lab}.json"


def read(lab: str) -> dict[str, object]:
    """All records of one lab; empty if there is no readable JSON file."""
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
    """Store `value` as `entry` of section `name`; return the file's path.

    Machine, date and versions are stored with it. The file is replaced atomically: if the kernel dies during the write,
    the old file stays whole.
    """
    content = read(lab)
    entries = section(lab, name)
    entries[entry] = value
    content.update({name: entries, "lab": lab, "written": now(), "machine": machine(), "versions": versions()})
    path = results_file(lab)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )
    partial.replace(path)
    return path


def measurement(lab: str, entry: str, value: float, unit: str) -> float:
    """Record one measured number with its unit, and return the number."""
    write(lab, "measurements", entry, {"value": float(value), "unit": unit, "written": now()})
    return value


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> dict[str, object]:
    """Description of the present machine."""
    return env.describe().as_dict()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
