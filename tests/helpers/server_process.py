"""The command `minillama serve` as a process."""

import re
import signal
import subprocess
import sys

END_SECONDS = 5


class Server:
    """A running command with its URL; a context manager that ends it."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "minillama", "serve", "--port", "0", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stderr is not None
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found[0].rstrip(",")
                return
        raise AssertionError("".join(self.lines))

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """End it as a system does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode
