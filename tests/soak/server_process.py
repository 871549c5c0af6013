"""A server as a process of its own, and what it uses."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 600
CALM_SECONDS = 12.0  # until idle threads have gone


@dataclass(frozen=True)
class Use:
    """What a leak would raise."""

    memory: int  # bytes, of the server alone
    threads: int
    descriptors: int
    children: int
    busy_slots: int


class ServerProcess:
    """`minillama serve` on a free port; ready when it is made."""

    def __init__(self, words: list[str], log: Path, port: int = 0) -> None:
        self._log = log
        command = [sys.executable, "-m", "minillama", "serve", "--port", str(port), *words]
        with log.open("wb") as file:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
        end = time.monotonic() + START_SECONDS
        while "listening on " not in self.log:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not start:\n{self.log}")
            time.sleep(0.2)
        self.url = self.log.split("listening on ")[1].split()[0].rstrip(",")

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def use(self) -> Use:
        """What it uses, after some calm."""
        time.sleep(CALM_SECONDS)
        busy = sum(slot["is_processing"] for slot in httpx.get(f"{self.url}/slots", timeout=60).json())
        found = psutil.Process(self.process.pid)
        return Use(
            found.memory_info().rss, found.num_threads(), found.num_fds(), len(found.children(recursive=True)), busy
        )

    def end(self, number: signal.Signals, seconds: float) -> tuple[float, int]:
        """Send a signal and wait; the seconds until the end, and its children that are left after as many again."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(seconds)
        ended = time.monotonic() - started
        return ended, len(psutil.wait_procs(children, timeout=seconds)[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
