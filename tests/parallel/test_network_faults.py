"""Workers in separate network namespaces, joined by a bridge; one link is cut."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minillama.errors import OptionError, ResourceError
from minillama.parallel.workers.addresses import Address
from minillama.parallel.workers.leader import connect_workers
from minillama.parallel.workers.wire import (
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
    KEEPALIVE_PROBES,
    Message,
)

pytestmark = pytest.mark.slow
WORKER_PROGRAM = Path(__file__).parents[1] / "helpers" / "fake_worker.py"
SECRET = b"open sesame"
PROGRAM = """\
import sys
from minillama.parallel.workers.supervisor import Supervisor, WorkerOptions, listen
log = lambda line: print(line, flush=True)
listener = listen("0.0.0.0", 50052, sys.argv[2].encode())
log("listening")
Supervisor(listener, WorkerOptions((sys.executable, sys.argv[1]), sys.argv[2].encode(), log, threads=1)).serve()
"""


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def links() -> Iterator[list[tuple[str, str]]]:
    """Two namespaces with addresses .2 and .3 (ours is .1): name and our end of the link."""
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux, ip and root")
    mark = os.getpid() % 10_000
    bridge, names = f"mlb{mark}", [(f"mln{mark}{end}", f"mlv{mark}{end}") for end in "ab"]
    try:
        try:
            ip(f"link add {bridge} type bridge")
            ip(f"addr add 10.213.7.1/24 dev {bridge}")
            ip(f"link set {bridge} up")
            for number, (name, cable) in enumerate(names):
                ip(f"netns add {name}")
                ip(f"link add {cable} type veth peer name eth0 netns {name}")
                ip(f"link set {cable} master {bridge} up")
                ip(f"-n {name} addr add 10.213.7.{2 + number}/24 dev eth0")
                ip(f"-n {name} link set eth0 up")
                ip(f"-n {name} link set lo up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield names
    finally:
        for name, _ in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


@pytest.fixture
def workers(links: list[tuple[str, str]]) -> Iterator[list[list[str]]]:
    """Start a worker in each namespace; yield their output lines."""
    environment = os.environ | {"PYTHONPATH": str(WORKER_PROGRAM.parents[2])}
    running, said = [], []
    try:
        for name, _ in links:
            command = ["ip", "netns", "exec", name, sys.executable, "-c", PROGRAM, str(WORKER_PROGRAM), SECRET.decode()]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            running.append(process)
            assert process.stdout is not None and process.stdout.readline() == "listening\n"
            said.append([])
            read = lambda lines, stdout: lines.extend(line.strip() for line in stdout)  # noqa: E731
            threading.Thread(target=read, args=(said[-1], process.stdout), daemon=True).start()
        yield said
    finally:
        for process in running:
            process.terminate()
            process.wait(10.0)
            if process.stdout is not None:
                process.stdout.close()


def test_cut_link(links: list[tuple[str, str]], workers: list[list[str]]) -> None:
    addresses = [Address("10.213.7.2", 50052), Address("10.213.7.3", 50052)]
    with pytest.raises(OptionError, match=r"worker 10\.213\.7\.2:50052 is on another machine, which requires a secret"):
        connect_workers(addresses, None, log=print)
    with connect_workers(addresses, SECRET, log=print) as group:
        assert [member.place.host for member in group.members] == ["10.213.7.2", "10.213.7.3"]
        group.send(Message("sum", {}, (np.ones(3, np.float32),)))
        assert [group.receive(worker).arrays[0].tolist() for worker in (0, 1)] == [[2.0] * 3] * 2
        group.send(Message("sums", {}, (np.ones(2048, np.float32),)))
        time.sleep(1.0)
        ip(f"link set {links[1][1]} down")
        started = time.monotonic()
        with pytest.raises(ResourceError, match=r"^worker 10\.213\.7\.3:50052 is lost"):
            group.receive(0)
        assert time.monotonic() - started < KEEPALIVE_IDLE_SECONDS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SECONDS + 10
    until = time.monotonic() + 15
    while not all(any("; ready again" in line for line in lines) for lines in workers):
        assert time.monotonic() < until, workers
        time.sleep(0.1)
    ip(f"link set {links[1][1]} up")
    with connect_workers(addresses, SECRET, log=print) as group:
        group.send(Message("echo"))
        group.receive(1)
