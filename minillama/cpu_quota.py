"""CPU quotas of containers and hubs, from Linux's control groups."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


@cache
def cpu_quota(groups: Path = GROUPS, mount: Path = MOUNT) -> float | None:
    """Cores that this process may keep busy; None without a limit. Read once.

    Docker's `--cpus` and Kubernetes' limits are such quotas. All cores stay visible then: more threads than the quota
    are stopped for the rest of each period, usually 100 ms.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    found = [cores for line in lines for folder in _folders(line, mount) if (cores := _quota(folder)) is not None]
    return min(found, default=None)


def _folders(line: str, mount: Path) -> Iterator[Path]:
    """The folders of a control group and of those above it.

    In a container the path may be that of the host; the group itself then is the mounted folder.
    """
    number, controllers, path = [*line.split(":", 2), "", ""][:3]
    if number == "0" and not controllers:
        root = mount
    elif "cpu" in controllers.split(","):
        root = next((mount / name for name in (controllers, "cpu") if (mount / name).is_dir()), mount / "cpu")
    else:
        return
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for count in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:count])


def _quota(folder: Path) -> float | None:
    """The quota of one control group, of version 2 or 1."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            cores = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            continue
        if cores > 0:
            return cores
    return None
