"""CPU quotas of containers and hubs, as files of control groups say them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minillama import machine
from minillama.cpu_quota import cpu_quota


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("line", "folder", "files", "expected"),
    [
        ("0::/", "", {"cpu__max": "200000 100000"}, 2.0),
        ("0::/", "", {"cpu__max": "max 100000"}, None),
        ("0::/user/lab", "user/lab", {"cpu__max": "50000 100000"}, 0.5),
        ("0::/user/lab", "user", {"cpu__max": "350000 100000"}, 3.5),  # of a group above
        ("0::/docker/host-side-path", "", {"cpu__max": "100000 100000"}, 1.0),  # the mounted folder is the group
        ("0::/../..", "", {"cpu__max": "100000 100000"}, 1.0),
        ("4:cpu,cpuacct:/lab", "cpu,cpuacct/lab", {"cpu__cfs_quota_us": "150000", "cpu__cfs_period_us": "100000"}, 1.5),
        ("4:cpuacct,cpu:/lab", "cpu/lab", {"cpu__cfs_quota_us": "150000", "cpu__cfs_period_us": "50000"}, 3.0),
        ("1:cpu:/", "cpu", {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, None),
        ("1:cpuset:/", "cpuset", {"cpu__cfs_quota_us": "1", "cpu__cfs_period_us": "100000"}, None),
        ("0::/", "", {"cpu__max": "broken"}, None),
        ("nonsense", "", {"cpu__max": "1 1"}, None),
        ("0::/", "", {"cpu__max": "1 0"}, None),
    ],
)
def test_quota(tmp_path: Path, line: str, folder: str, files: dict[str, str], expected: float | None) -> None:
    groups, mount = tmp_path / "cgroup", tmp_path / "mount"
    groups.write_text(f"9:pids:/\n{line}\n")
    write(mount / folder, **files)
    assert cpu_quota(groups, mount) == expected


def test_the_smallest_of_all_groups(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("0::/a/b\n")
    write(tmp_path, cpu__max="max 100000")
    write(tmp_path / "a", cpu__max="300000 100000")
    write(tmp_path / "a" / "b", cpu__max="400000 100000")
    assert cpu_quota(groups, tmp_path) == 3.0


def test_no_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "nothing", tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.3, 1), (2.0, 2), (2.5, 3), (100.0, 8)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.usable_cores(range(8)) == cores


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to limit")
def test_the_pool_of_a_process_with_a_quota() -> None:
    """XLA and the kernels compute on as many threads as the quota allows."""
    program = """
from minillama import machine
machine.cpu_quota = lambda: 1.0
import minillama, threading, os
from minillama import env
env.prepare()
import jax
jax.numpy.ones(8).block_until_ready()
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(env.thread_limits(), sum(name.startswith("tf_XLAEigen") for name in names))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[0] == "(1, 1) 1", found.stdout
