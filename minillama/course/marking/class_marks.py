"""Marks of a class: each lab of each learner in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minillama.course.copies.exercise_points import BY_READER, points_of
from minillama.course.marking.exercise_programs import Program, lab_of, programs, tried
from minillama.course.marking.lab_exercises import all_labs
from minillama.course.marking.marks import ItemMark, LabMark, LearnerMark, State
from minillama.course.marking.submissions import Notebook, Submission, read_submission
from minillama.errors import first_line

NOT_HANDED_IN = "not handed in"
START_SECONDS = 120.0  # of a marking process beyond the limits of its exercises: imports and the checks' own work


@dataclass(frozen=True)
class HandedIn:
    """The notebooks of a learner that count, by lab, and notes on the others."""

    learner: str
    notebooks: Mapping[str, Notebook]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MarkingOptions:
    """Limits of a lab's process, processes at once, and the labs that count.

    labs: None for those that each learner has handed in."""

    seconds: float = 60.0
    memory: int = 4 << 30
    jobs: int = 1
    labs: tuple[str, ...] | None = None


class ClassMarker:
    """Marks submissions one after another; `close` ends the processes that still run."""

    def __init__(self, options: MarkingOptions) -> None:
        self.options = options
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False
        self._parsing = threading.Lock()  # Python 3.11's `ast.parse` fails now and then in several threads at once
        self._pool = ThreadPoolExecutor(options.jobs)
        self._folder = tempfile.TemporaryDirectory(prefix="minillama-course-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """End all processes and wait for the threads."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in tuple(self._running):
            _kill(process)
        self._pool.shutdown(wait=True)
        self._folder.cleanup()

    def marks(self, learners: Sequence[HandedIn]) -> Iterator[tuple[int, LearnerMark]]:
        """The marks of learners when they are finished, with their places."""
        futures = {self._pool.submit(self._learner, each): place for place, each in enumerate(learners)}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def _learner(self, handed_in: HandedIn) -> LearnerMark:
        try:
            return self._marks_of(handed_in)
        except Exception as error:  # one submission never stops a class
            labs = {number: not_handed_in(number) for number in self.options.labs or ()}
            return LearnerMark(handed_in.learner, labs, (_grader_failed(error),))

    def _marks_of(self, handed_in: HandedIn) -> LearnerMark:
        chosen = handed_in.notebooks
        wanted = sorted(chosen) if self.options.labs is None else self.options.labs
        labs = {
            number: self._lab(number, chosen[number]) if number in chosen else not_handed_in(number)
            for number in wanted
        }
        return LearnerMark(handed_in.learner, labs, handed_in.notes)

    def _lab(self, number: str, notebook: Notebook) -> LabMark:
        """The marks of one notebook; a failed marking process is a reason, not an error."""
        lab = all_labs()[number]
        with self._parsing:
            found = programs(notebook, lab)
        job = {
            "lab": number,
            "language": notebook.language,
            "seconds": self.options.seconds,
            "memory": self.options.memory,
            "exercises": [program.job() for program in found],
        }
        limit = START_SECONDS + self.options.seconds * sum(program.state is None for program in found)
        rows, reason = self._run(job, limit)
        if rows is None:
            rows = [{"item": each.exercise.item, "title": each.exercise.item, "state": "not yet", "message": reason}
                    for each in found]  # fmt: skip
        items = tuple(_item(row, program) for row, program in zip(rows, found, strict=True))
        return LabMark(number, items, notebook.path, reason, notebook.language)

    def _run(self, job: dict[str, object], limit: float) -> tuple[list[dict[str, str]] | None, str]:
        """The rows that the marking process writes, or None and the reason."""
        if self._closed:
            return None, "interrupted"
        command = [sys.executable, "-m", "minillama.course.marking.lab_marker"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", start_new_session=True,
            env={**os.environ, "TMPDIR": self._folder.name},
        )  # fmt: skip
        self._running.add(process)
        try:
            out, errors = process.communicate(json.dumps(job), timeout=limit)
        except subprocess.TimeoutExpired:
            return None, f"the lab was not marked within {limit:g} s"
        finally:
            _kill(process)
            self._running.discard(process)
        if process.returncode:
            last = next((line for line in reversed(errors.splitlines()) if line.strip()), "no message")
            return None, f"the marking process failed with status {process.returncode}: {last.strip()[:200]}"
        return json.loads(out), ""


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _item(row: dict[str, str], program: Program) -> ItemMark:
    return ItemMark(
        row["item"], row["title"], State(row["state"]), row["message"], program.note,
        points_of(program.exercise.lab, program.exercise.item), program.source,
    )  # fmt: skip


def learner_names(paths: Sequence[Path]) -> list[str]:
    """The learners' names: those of the files without their endings, where these differ."""
    stems = [path.name if path.is_dir() else path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else path.name for stem, path in zip(stems, paths, strict=True)]


def not_handed_in(number: str) -> LabMark:
    """The marks of a lab that a learner did not hand in."""
    items = []
    for exercise in all_labs()[number].exercises:
        state = State.BY_READER if (number, exercise.item) in BY_READER else State.MISSING
        items.append(ItemMark(exercise.item, exercise.item, state, "", points=points_of(number, exercise.item)))
    return LabMark(number, tuple(items), reason=NOT_HANDED_IN)


def read_class(paths: Sequence[Path], wanted: Sequence[str] | None) -> list[HandedIn]:
    """Read each submission once. wanted: numbers of labs; None for all.

    An error of one submission is a note of its learner.
    """
    return [_handed_in(path, name, wanted) for path, name in zip(paths, learner_names(paths), strict=True)]


def _handed_in(path: Path, learner: str, wanted: Sequence[str] | None) -> HandedIn:
    try:
        chosen, notes = chosen_notebooks(read_submission(path), wanted)
    except Exception as error:  # one submission never stops a class
        return HandedIn(learner, {}, (_grader_failed(error),))
    return HandedIn(learner, chosen, tuple(notes))


def _grader_failed(error: Exception) -> str:
    return f"not marked, because of an error of the grader: {first_line(error, with_type=True, limit=200)}"


def labs_handed_in(learners: Sequence[HandedIn]) -> tuple[str, ...]:
    """Numbers of the labs that any learner has handed in."""
    return tuple(sorted({number for each in learners for number in each.notebooks}))


def chosen_notebooks(submission: Submission, wanted: Sequence[str] | None) -> tuple[dict[str, Notebook], list[str]]:
    """One notebook for each lab, with notes on the others.

    Of several notebooks of a lab, the one with the most exercises tried counts.
    """
    notebooks, notes = submission.notebooks()
    notes = [*submission.notes, *notes]
    groups: dict[str, list[Notebook]] = {}
    for notebook in notebooks:
        number = lab_of(notebook)
        if number is None:
            notes.append(f"{notebook.path} is no notebook of a lab")
        elif wanted is None or number in wanted:
            groups.setdefault(number, []).append(notebook)
    chosen = {}
    for number, found in groups.items():
        counts = [tried(notebook, all_labs()[number]) for notebook in found]
        chosen[number] = found[counts.index(max(counts))]
        if len(found) > 1:
            others = ", ".join(each.path for each in found if each is not chosen[number])
            notes.append(f"lab {number} is there {len(found)} times; {chosen[number].path} counts, not {others}")
    if not notebooks and not notes:
        notes.append("no notebook in the submission")
    return chosen, notes
