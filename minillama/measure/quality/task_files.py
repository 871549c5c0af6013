"""Multiple-choice tasks in llama.cpp's file formats, and its random selection of tasks."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillama.errors import FormatError, quoted

_SEED = 1  # of the random selection; llama.cpp's is fixed too
_MOST_ANSWERS = 100
_HELLASWAG_LINES = 6


@dataclass(frozen=True)
class Task:
    """Texts to choose from; the correct ones have the indices in `right`.

    `scored_after`: prefix of each text that is not scored; the last token of the text is not scored either. None: all
    tokens after the common prefix of the texts are scored.
    """

    texts: tuple[str, ...]
    right: frozenset[int]  # usually one index
    scored_after: tuple[str, ...] | None = None


def read_hellaswag(text: str) -> list[Task]:
    """Read tasks of six lines: a context, the index of the correct ending, four endings.

    Raises FormatError for a wrong number of lines or a wrong index.
    """
    lines = text.removesuffix("\n").split("\n")
    if len(lines) % _HELLASWAG_LINES or not text:
        raise FormatError(f"HellaSwag: {len(lines)} lines; a task takes {_HELLASWAG_LINES}")
    tasks = []
    for start in range(0, len(lines), _HELLASWAG_LINES):
        context, right, *endings = lines[start : start + _HELLASWAG_LINES]
        if right.strip() not in ("0", "1", "2", "3"):
            raise FormatError(
                f"HellaSwag: line {start + 2} is {quoted(right)}; expected the index of the correct ending, 0 to 3"
            )
        tasks.append(Task(tuple(f"{context} {ending}" for ending in endings), frozenset({int(right)})))
    return tasks


def read_winogrande(text: str) -> list[Task]:
    """Read lines of the form `index,sentence with _,choice 1,choice 2,answer`.

    A sentence with commas is in quotes. A choice replaces `_`, and the text after it is scored. Raises FormatError for
    other lines.
    """
    tasks = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        parts = _split_csv(line)
        sentence = parts[1] if len(parts) == 5 else ""
        sentence = sentence[1:-1] if sentence.startswith('"') else sentence
        if "_" not in sentence or parts[4].strip() not in ("1", "2"):
            raise FormatError(
                f"Winogrande: line {number} is {quoted(line)}; expected index,sentence _,choice,choice,1 or 2"
            )
        before, _, after = sentence.partition("_")
        fronts = tuple(before + choice for choice in parts[2:4])
        tasks.append(Task(tuple(front + after for front in fronts), frozenset({int(parts[4]) - 1}), fronts))
    return tasks


def _split_csv(line: str) -> list[str]:
    """Split at the first four commas outside quotes; quotes are kept."""
    parts, start, quoted = [], 0, False
    for place, sign in enumerate(line):
        if sign == '"':
            quoted = not quoted
        elif sign == "," and not quoted and len(parts) < 4:
            parts.append(line[start:place])
            start = place + 1
    return [*parts, line[start:]]


def read_multiple_choice(data: bytes) -> list[Task]:
    """Read llama.cpp's binary file, little-endian: uint32 task count, uint32 offset of each task, tasks.

    A task has a question, answers with one correct, and answers with several correct (not used). Answers: uint32
    count, the texts, an int32 label (1 correct, 0 wrong) for each. A text: uint32 size in bytes, UTF-8.
    Raises FormatError if the file is truncated or a task is empty.
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
    """Reads numbers and texts from bytes."""

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
            raise FormatError(f"multiple choice: the file ends at byte {len(self._data)} within a task")
        self.place += size
        return taken


def draw_uniformly(tasks: Sequence[Task], count: int) -> list[Task]:
    """Select tasks at random without replacement, as llama.cpp does for HellaSwag.

    std::uniform_int_distribution over std::mt19937 as in libstdc++ (Lemire 2019).
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
    """Select tasks at random, as llama.cpp does for Winogrande and multiple choice.

    All tasks in order if `count` is 0 or not below their number. The last remaining task replaces the selected one;
    the index is computed in single precision, as in llama.cpp.
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
    """32-bit numbers of std::mt19937."""

    def __init__(self) -> None:
        self._state = np.random.RandomState(_SEED)

    def next(self) -> int:
        return int(self._state.randint(0, 1 << 32, dtype=np.uint32))
