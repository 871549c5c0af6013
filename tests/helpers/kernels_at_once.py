"""Run several kernels of one lab at the same time, and check that they measured one after the other.

python tests/helpers/kernels_at_once.py 8      # eight kernels of lab 05: about 1 GiB and minutes each
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from minillama.lab import build

CELL_SECONDS = 3600  # a cell waits for the measurements of all other kernels


@dataclass(frozen=True, order=True)
class KernelSpan:
    """A measurement of one kernel: its times, and the share of all cores that others used; None if not recorded."""

    begun: datetime
    ended: datetime
    kernel: int
    name: str
    other_load: float | None


async def run_all(lab: str, folders: Sequence[Path], environment: dict[str, str]) -> None:
    """Execute the solved lab in all folders at the same time.

    Raises nbclient.exceptions.CellExecutionError if a cell of any kernel fails.
    """
    (source,) = build.sources(wanted=[lab])
    clients = [build.client_of(build.solution(source), folder, seconds=CELL_SECONDS) for folder in folders]
    await asyncio.gather(*(client.async_execute(env=environment) for client in clients))


def spans(folders: Sequence[Path], lab: str) -> list[KernelSpan]:
    """All recorded measurements with times, in order of their beginnings."""
    found = []
    for kernel, folder in enumerate(folders):
        content = json.loads((folder / "results" / f"lab{lab}.json").read_text())
        for name, entry in content["measurements"].items():
            if "begun" in entry:
                times = (datetime.fromisoformat(entry[end]) for end in ("begun", "ended"))
                found.append(KernelSpan(*times, kernel, name, entry.get("other_load")))
    return sorted(found)


def overlaps(found: Sequence[KernelSpan]) -> list[tuple[KernelSpan, KernelSpan]]:
    """Pairs of measurements of two kernels that ran at the same time."""
    return [
        (one, other)
        for place, one in enumerate(found)
        for other in found[place + 1 :]
        if one.kernel != other.kernel and other.begun < one.ended and one.begun < other.ended
    ]


def kernels_at_once(count: int, folder: Path, lab: str = "05") -> list[KernelSpan]:
    """Run `count` kernels of a lab in folders below `folder`, with a lock of their own; return all measurements.

    Raises nbclient.exceptions.CellExecutionError if a cell of any kernel fails.
    """
    folders = [folder / f"kernel{number}" for number in range(count)]
    for each in folders:
        each.mkdir()
    asyncio.run(run_all(lab, folders, build.kernel_environment() | {"MINILLAMA_LOCK_FILE": str(folder / "lock")}))
    return spans(folders, lab)


def main(count: int) -> int:
    """Print all measurements; exit status 1 if two kernels measured at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        found = kernels_at_once(count, Path(folder))
    for span in found:
        load = "no load recorded" if span.other_load is None else f"{span.other_load:.0%} of the cores used by others"
        print(f"{span.begun:%H:%M:%S.%f} {span.ended:%H:%M:%S.%f} kernel {span.kernel}: {span.name}, {load}")
    both = overlaps(found)
    for one, other in both:
        print(f"at the same time: kernel {one.kernel} {one.name} and kernel {other.kernel} {other.name}")
    print(f"{count} kernels ended, {len(found)} measurements, {len(both)} at the same time")
    return 1 if both or not found else 0


if __name__ == "__main__":
    os.environ.pop("XLA_FLAGS", None)
    sys.exit(main(int(sys.argv[1])))
