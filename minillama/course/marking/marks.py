"""Marks: of an exercise, of a lab, of a learner."""

from dataclasses import dataclass, field
from enum import StrEnum

from minillama.course.copies.exercise_points import EACH


class State(StrEnum):
    """The state of an exercise."""

    PASSED = "passed"
    NOT_YET = "not yet"
    NOT_TRIED = "not tried"  # the stub is unchanged
    MISSING = "missing"  # no cell with the id, and no function of the name
    STOPPED = "stopped"  # the code ended or its time was over
    BY_READER = "by a reader"  # uses the learner's measurements; not in the points


@dataclass(frozen=True)
class ItemMark:
    """The mark of one exercise, with the check's message.

    note: a line on how its code was found."""

    item: str
    title: str
    state: State
    message: str
    note: str = ""
    points: float = EACH
    code: str = ""

    @property
    def counts(self) -> bool:
        """True if the exercise is in the points."""
        return self.state is not State.BY_READER

    @property
    def earned(self) -> float:
        """Its points."""
        return self.points if self.state is State.PASSED else 0.0


@dataclass(frozen=True)
class LabMark:
    """The marks of one lab; `reason` is why it could not be marked."""

    lab: str
    items: tuple[ItemMark, ...]
    file: str = ""
    reason: str = ""
    language: str = "en"

    @property
    def earned(self) -> float:
        """Points of the lab."""
        return sum(item.earned for item in self.items)

    @property
    def possible(self) -> float:
        """Points that the lab has."""
        return sum(item.points for item in self.items if item.counts)


@dataclass(frozen=True)
class LearnerMark:
    """The marks of one learner."""

    learner: str
    labs: dict[str, LabMark] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def earned(self) -> float:
        """Points of all labs."""
        return sum(lab.earned for lab in self.labs.values())

    @property
    def possible(self) -> float:
        """Points that the labs have."""
        return sum(lab.possible for lab in self.labs.values())

    @property
    def language(self) -> str:
        """The language of most of the learner's notebooks."""
        found = [lab.language for lab in self.labs.values() if lab.file]
        return max(sorted(set(found)), key=found.count) if found else "en"

    def remarks(self) -> list[str]:
        """Lines on what a reader should know: unread files, stopped code, cells found by name."""
        lines = list(self.notes)
        for lab in self.labs.values():
            if lab.reason:
                lines.append(f"lab {lab.lab}: {lab.reason}")
                continue
            for item in lab.items:
                if item.state in (State.STOPPED, State.BY_READER, State.MISSING) and item.message:
                    lines.append(f"lab {lab.lab}, {item.item}: {item.message}")
                if item.note:
                    lines.append(f"lab {lab.lab}, {item.item}: {item.note}")
        return lines
