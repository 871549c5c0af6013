"""Records of predictions, measurements and checks: one JSON file per lab.

The files are in `results/`, in the folder of the notebook. Nothing here raises if a file or the folder is damaged or
cannot be written; `minillama.lab.results_file` says what happens then.
"""

import importlib.metadata
import math
import platform
from datetime import UTC, datetime
from pathlib import Path

from minillama import env
from minillama.lab import results_file as files
from minillama.lab.language import records_folder, translate
from minillama.lab.measuring import present_span

PACKAGES = ("minillama", "jax", "jaxlib", "numpy", "gguf")


def results_folder() -> Path:
    """Folder of all labs' records; that of a translated notebook is the English one's."""
    return records_folder(files.absolute(Path("results")))


def results_file(lab: str) -> Path:
    """Path of a lab's records."""
    return results_folder() / f"lab{lab}.json"


def read(lab: str) -> dict[str, object]:
    """All records of one lab; empty if there is no readable JSON file."""
    return files.load(results_file(lab))


def section(lab: str, name: str) -> dict[str, object]:
    """One section of a lab's records: `predictions`, `measurements` or `checks`."""
    entries = read(lab).get(name, {})
    return entries if isinstance(entries, dict) else {}


def write(lab: str, name: str, entry: str, value: object) -> Path:
    """Store `value` as `entry` of section `name`; return the file's path.

    Machine, date and versions are stored with it. The file is replaced atomically: if the kernel dies during the write,
    the old file stays whole. Entries that another kernel wrote stay.
    """
    path = results_file(lab)
    files.store(path, name, entry, value, lambda: facts(lab))
    return path


def facts(lab: str) -> dict[str, object]:
    """Values of a file next to its sections."""
    return {"lab": lab, "written": now(), "machine": machine(), "versions": versions()}


def measurement(lab: str, entry: str, value: float, unit: str) -> float:
    """Record one measured number with its unit, and return the number."""
    write(lab, "measurements", entry, measured(value, unit))
    return value


def roof_share(lab: str, entry: str, share: float) -> float:
    """Record the share of a roof that was reached, and return it.

    A share above 1 is impossible, so one of its two numbers is wrong: the record is marked, and a line says so.
    """
    mark = {"above_roof": True} if share > 1 else {}
    if mark:
        print(translate("{share:.0%} of the roof, which no program can exceed: measure both again.", share=share))
    write(lab, "measurements", entry, measured(share, "share") | mark)
    return share


def measured(value: float, unit: str) -> dict[str, object]:
    """The entry of a measured number, with the times and load of its measurement.

    That is the one under way, or else the last one of this kernel.
    """
    span = present_span()
    return {"value": float(value), "unit": unit, **(span.entries() if span else {}), "written": now()}


def number(entry: object, name: str) -> float | None:
    """A finite number of a recorded entry; None if it holds none."""
    return finite(entry.get(name)) if isinstance(entry, dict) else None


def finite(value: object) -> float | None:
    """A value as a finite number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number with hundreds of digits
        return None


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
