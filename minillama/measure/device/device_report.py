"""A device report as one JSON file that is written anew after each value."""

import json
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from minillama import __version__
from minillama.atomic_file import atomic_write
from minillama.errors import ResourceError
from minillama.measure.device.limited_steps import Event, Start, limited_steps
from minillama.measure.device.report_steps import Step


@dataclass
class DeviceReport:
    """The values so far.

    rows: each with the device, jax's version and the seconds since the start (`at`). not_run: steps that did not end,
    with the reason.
    """

    path: Path
    seconds: float  # the limit
    rows: list[dict[str, object]] = field(default_factory=list)
    not_run: list[dict[str, object]] = field(default_factory=list)
    device: dict[str, object] = field(default_factory=dict)

    def run(self, steps: Sequence[Step], start: Start, *, on_cpu: bool = False) -> Generator[Event, None, None]:
        """Run steps, and yield each event after the file has it.

        on_cpu: whether the processor is the device. Raises ResourceError where there is no other one, and for a file
        that cannot be written.
        """
        started, begun = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), time.monotonic()
        for event in limited_steps(steps, start, self.seconds):
            if event["event"] == "device":
                self._take_device(event, on_cpu=on_cpu)
            elif event["event"] == "value":
                facts = {"at": round(time.monotonic() - begun, 1), "device": self.device["device"]}
                row = {name: value for name, value in event.items() if name != "event"}
                self.rows.append({**row, **facts, "jax": self.device["jax"]})
            elif event["event"] == "refused":
                self.not_run.append({"step": event["step"], "reason": event["reason"]})
            self._write(started)
            yield event

    def _take_device(self, event: Event, *, on_cpu: bool) -> None:
        if event["platform"] == "cpu" and not on_cpu:
            raise ResourceError("JAX finds no GPU or TPU here; --device cpu runs a small report on the processor")
        self.device = {name: value for name, value in event.items() if name != "event"}

    def _write(self, started: str) -> None:
        versions = {"minillama": __version__, "started": started, "limit_seconds": self.seconds}
        content = {**self.device, **versions, "rows": self.rows, "not_run": self.not_run}
        with atomic_write(self.path) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
