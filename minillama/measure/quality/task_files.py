"""Multiple-choice tasks in llama.cpp's file formats, and its random choice among them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillama.errors import FormatError

_SEED = 1  # of the choice among tasks; llama.cpp's is fixed as well
_MOST_ANSWERS = 100
_HELLASWAG_LINES = 6


@dataclass(frozen=True)
class Task:
    """Some texts, of which the model should find the right one likeliest.

    `scored_after`: of each text, what stands in front of the part that is scored, of which the last token is left out
    as well; None: what all texts begin with does, and all that follows is scored.
    """

    texts: tuple[str, ...]
    right: frozenset[int]  # usually one
    scored_after: tuple[str, ...] | None = None


def read_hellaswag(text: str) -> list[Task]:
    """Tasks of six lines: a context, the number of the right ending from 0, four endings.

    Raises FormatError for another number of lines, or no number.
    """
    lines = text.removesuffix("\n").split("\n")
    if len(lines) % _HELLASWAG_LINES or not text:
        raise FormatError(f"HellaSwag: {len(lines)} lines; a task takes {_HELLASWAG_LINES}")
    tasks = []
    for start in range(0, len(lines), _HELLASWAG_LINES):
        context, right, *endings = lines[start : start + _HELLASWAG_LINES]
        if right.strip() not in ("0", "1", "2", "3"):
            raise FormatError(f"HellaSwag: line {start + 2} is {right!r}; expected the right ending, 0 to 3")
        tasks.append(Task(tuple(f"{context} {ending}" for ending in endings), frozenset({int(right)})))
    return tasks


def read_winogrande(text: str) -> list[Task]:
    """Lines `index,sentence with _,choice 1,choice 2,answer`, the sentence in quotes if there are commas in it.

    The choices take the place of _, and what follows is scored. Raises FormatError for a line of another form.
    """
    tasks = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        parts = _split_csv(line)
        sentence = parts[1] if len(parts) == 5 else ""
        sentence = sentence[1:-1] if sentence.startswith('"') else sentence
        if "_" not in sentence or parts[4].strip() not in ("1", "2"):
            raise FormatError(f"Winogrande: line {number} is {line!r}; expected index,sentence _,choice,choice,1 or 2")
        before, _, after = sentence.partition("_")
        fronts = tuple(before + choice for choice in parts[2:4])
        tasks.append(Task(tuple(front + after for front in fronts), frozenset({int(parts[4]) - 1}), fronts))
    return tasks


def _split_csv(line: str) -> list[str]:
    """The parts between the first four commas outside quotes, quotes left in."""
    parts, start, quoted = [], 0, False
    for place, sign in enumerate(line):
        if sign == '"':
            quoted = not quoted
        elif sign == "," and not quoted and len(parts) < 4:
            parts.append(line[start:place])
            start = place + 1
    return [*parts, line[start:]]


def read_multiple_choice(data: bytes) -> list[Task]:
    """llama.cpp's binary file, little-endian: uint32 number of tasks, uint32 place of each, tasks.

    A task: the question, the answers of which one is right, and others of which several are (not used). Answers:
    uint32 number, the texts, int32 1 or 0 of each. A text: uint32 bytes, UTF-8.
    Raises FormatError where it is cut off or a task is empty.
    """
    reader = _Reader(data)
    count = reader.number()
    if not 0 < count <= len(data) // 4:
        raise FormatError(f"multiple choice: {count} tasks in a file of {len(data)} bytes")
    tasks = []
    for place in [reader.number() for _ in range(count)]:
        reader.place = place
        question = reader.text()
        answers, labels = reader.answers()
        if not question or not answers or not all(answers):
            raise FormatError(f"multiple choice: the task at byte {place} has an empty question or answer")
        right = frozenset(number for number, label in enumerate(labels) if label == 1)
        tasks.append(Task(tuple(f"{question} {answer}" for answer in answers), right))
    return tasks


class _Reader:
    """Numbers and texts from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def number(self) -> int:
        return struct.unpack("<I", self._take(4))[0]

    def text(self) -> str:
        return self._take(self.number()).decode("utf-8", errors="replace")

    def answers(self) -> tuple[list[str], list[int]]:
        count = self.number()
        if count > _MOST_ANSWERS:
            raise FormatError(f"multiple choice: {count} answers at byte {self.place}; at most {_MOST_ANSWERS}")
        return [self.text() for _ in range(count)], [self.number() for _ in range(count)]

    def _take(self, size: int) -> bytes:
        taken = self._data[self.place : self.place + size]
        if len(taken) < size:
            raise FormatError(f"multiple choice: the file ends at byte {len(self._data)} inside of a task")
        self.place += size
        return taken


def draw_uniformly(tasks: Sequence[Task], count: int) -> list[Task]:
    """The tasks that llama.cpp takes for HellaSwag: one after the other out of those that are left.

    std::uniform_int_distribution over std::mt19937 as libstdc++ has it (Lemire 2019).
    """
    draws, left, taken = _Mt19937(), list(tasks), []
    for _ in range(min(count, len(tasks))):
        size = len(left)
        product = draws.next() * size
        while product % (1 << 32) < (1 << 32) % size:
            product = draws.next() * size
        taken.append(left.pop(product >> 32))
    return taken


def draw_scaled(tasks: Sequence[Task], count: int) -> list[Task]:
    """The tasks that llama.cpp takes for Winogrande and multiple choice; all in order for 0 or more than there are.

    The last of those that are left takes the place of the one taken; single precision, as there.
    """
    if not 0 < count < len(tasks):
        return list(tasks)
    draws, left, taken = _Mt19937(), list(tasks), []
    for _ in range(count):
        number = int(np.float32(draws.next()) * np.float32(2.0**-32) * np.float32(len(left)))
        number = min(number, len(left) - 1)
        taken.append(left[number])
        left[number] = left[-1]
        left.pop()
    return taken


class _Mt19937:
    """std::mt19937: 32-bit numbers."""

    def __init__(self) -> None:
        self._state = np.random.RandomState(_SEED)

    def next(self) -> int:
        return int(self._state.randint(0, 1 << 32, dtype=np.uint32))
