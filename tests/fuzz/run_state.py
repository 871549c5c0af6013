"""The state of a run: done cases, counts and findings, in a JSON file that a later run goes on from."""

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class KindState:
    """Results of one kind so far; `done` has sorted, disjoint ranges of case numbers."""

    done: list[list[int]] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    findings: dict[str, str] = field(default_factory=dict)  # case number or range -> problem
    slowest: tuple[float, int] = (0.0, 0)  # seconds of processor time, case
    largest: tuple[int, int] = (0, 0)  # bytes, case
    in_time_alone: dict[str, str] = field(default_factory=dict)  # case number -> problem that did not come again
    bytes_per_case: float = 0.0  # the steepest slope of a process's memory

    @property
    def count(self) -> int:
        """Number of cases that ran."""
        return sum(last - first for first, last in self.done)

    def add_range(self, first: int, last: int) -> None:
        """Mark cases as done."""
        merged: list[list[int]] = []
        for begin, end in sorted([*self.done, [first, last]]):
            if merged and begin <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([begin, end])
        self.done = merged

    def add_outcomes(self, outcomes: dict[str, int]) -> None:
        """Add counts."""
        self.outcomes = dict(Counter(self.outcomes) + Counter(outcomes))

    def missing(self, total: int, size: int) -> list[tuple[int, int]]:
        """The cases below `total` that are not done, in ranges of at most `size`."""
        gaps, place = [], 0
        for first, last in [*self.done, [total, total]]:
            gaps += [(start, min(start + size, first, total)) for start in range(place, min(first, total), size)]
            place = max(place, last)
        return gaps


class RunState:
    """The results of all kinds, kept in a file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        known = json.loads(file.read_text()) if file is not None and file.exists() else {}
        self.kinds = {name: KindState(**values) for name, values in known.items()}

    def of(self, kind: str) -> KindState:
        """The state of a kind."""
        return self.kinds.setdefault(kind, KindState())

    def save(self) -> None:
        """Write the file, in one step."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(".tmp")
            unfinished.write_text(json.dumps({name: asdict(state) for name, state in self.kinds.items()}, indent=1))
            os.replace(unfinished, self._file)
