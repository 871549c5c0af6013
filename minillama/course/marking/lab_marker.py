"""Program that marks one lab of one learner, with the package's checks.

A job comes on stdin as JSON, the marks go to stdout as JSON. This process runs no code of the learner.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module

from minillama import env
from minillama.course.isolation.learner_link import FarFunction, LearnerEndedError, LearnerProcess, ProcessOptions
from minillama.course.isolation.process_limits import end_with_parent
from minillama.course.isolation.source_screen import refused
from minillama.course.learner_texts import learner_text
from minillama.course.marking.exercise_programs import CPU_DEVICES, LAB_CELL
from minillama.course.marking.marks import State
from minillama.text_language import VARIABLE

Parts = list[tuple[str, str]]
Job = Mapping[str, object]
Outcome = tuple[State, str]


class LabMarker:
    """Marks the exercises of one lab; a learner's process serves several until it ends."""

    def __init__(self, lab: str, language: str, options: ProcessOptions) -> None:
        self._language = language
        self._check = import_module(f"minillama.lab.checks.lab{lab}")
        self._options = options
        self._stack = ExitStack()
        self._process: LearnerProcess | None = None

    def marks(self, exercises: Sequence[Job]) -> Iterator[dict[str, str]]:
        """Item, title, state and message of each exercise."""
        from minillama.lab.language import translate

        with self._stack:
            for job in exercises:
                item = getattr(self._check, str(job["item"]))
                state, message = self._outcome(item, job)
                yield {"item": item.name, "title": translate(item.title), "state": state, "message": message}

    def _outcome(self, item: object, job: Job) -> Outcome:
        if job["state"]:
            return State(str(job["state"])), str(job["message"])
        parts = [(str(file), str(code)) for file, code in job["parts"]]  # type: ignore[attr-defined]
        try:
            if not job["traced"]:
                return self._apart(self._shared_process(), parts, item, job)
            if found := refused([code for file, code in parts if file != LAB_CELL]):
                text = "this check runs in the process of your code, and does not accept {found}; only compute"
                return State.NOT_YET, self._text(text, found=found)
            devices, processes = int(job["cpu_devices"]), bool(job["processes"])  # type: ignore[call-overload]
            with LearnerProcess(replace(self._options, processes=processes, cpu_devices=devices)) as process:
                return self._together(process, parts, item, job)
        except LearnerEndedError as end:
            return State.STOPPED, self._text(end.text, **end.values)

    def _text(self, text: str, **values: object) -> str:
        return learner_text(self._language, text, **values)

    def _shared_process(self) -> LearnerProcess:
        if self._process is None or not self._process.is_alive:
            self._process = self._stack.enter_context(LearnerProcess(self._options))
        return self._process

    def _apart(self, process: LearnerProcess, parts: Parts, item: object, job: Job) -> Outcome:
        """The check's result, from this process."""
        if problem := self._undefined(process, parts, job):
            return State.NOT_YET, problem
        result = item(FarFunction(process, str(job["function"])))  # type: ignore[operator]
        return State.PASSED if result.passed is True else State.NOT_YET, result.message

    def _together(self, process: LearnerProcess, parts: Parts, item: object, job: Job) -> Outcome:
        """The check's result, from the learner's process."""
        if problem := self._undefined(process, parts, job):
            return State.NOT_YET, problem
        kind, *result = process.request("examine", job["function"], item.lab, item.name)  # type: ignore[attr-defined]
        if kind != "examined":
            return State.NOT_YET, f"{result[0]}: {str(result[1])[:300]}"
        return State.PASSED if result[0] is True else State.NOT_YET, str(result[1])

    def _undefined(self, process: LearnerProcess, parts: Parts, job: Job) -> str:
        """Why the code defines no such function; empty if it does."""
        problems = process.define(parts)
        kind, *found = process.request("has", job["function"])
        if kind == "has" and found[0] is True:
            return ""
        return problems[0] if problems else self._text("the cell defines no function `{name}`", name=job["function"])


def main() -> int:
    """Read a job, mark, and write the marks; what the checks print is dropped."""
    end_with_parent()
    job = json.load(sys.stdin)
    answers = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.environ[VARIABLE] = job["language"]
    with tempfile.TemporaryDirectory(prefix="minillama-course-") as folder:
        os.chdir(folder)  # the check's records
        if job["lab"] in CPU_DEVICES:
            env.prepare(cpu_devices=CPU_DEVICES[job["lab"]])
        marker = LabMarker(job["lab"], job["language"], ProcessOptions(job["seconds"], job["memory"]))
        found = list(marker.marks(job["exercises"]))
        os.chdir(os.path.dirname(folder))
    sys.stdout.flush()
    os.dup2(answers, 1)
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
