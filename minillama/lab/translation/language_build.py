"""Update catalogues, and write or check the notebooks of a language.

`labs/po/zh_CN/NN.po` is the catalogue of a lab, `minillama/lab/locale/zh_CN/LC_MESSAGES/minillama.po` that of the
package, and the .mo file next to it is what gettext reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from minillama.lab.language import DOMAIN, LOCALE_FOLDER
from minillama.lab.translation import catalogue_files as files
from minillama.lab.translation.code_strings import CodeStringError
from minillama.lab.translation.package_messages import package_messages, prediction_messages
from minillama.lab.translation.translated_notebook import code_of, lab_messages, translated_notebook, with_outputs

BUILD = "python -m minillama.lab.build"
PACKAGE = "package"  # in place of a lab's number: the messages of the package
Store = Callable[[NotebookNode, Path], None]
IsInStep = Callable[[NotebookNode, Path], bool]


@dataclass(frozen=True)
class Lab:
    """A lab in English: both notebooks, and the file of the executed one."""

    number: str
    source: Path
    learner: NotebookNode
    solution: NotebookNode
    executed: Path

    @cached_property
    def messages(self) -> list[files.Message]:
        return lab_messages((self.solution, self.learner), f"labs/src/{self.source.name}")


@dataclass(frozen=True)
class Language:
    """The catalogues and notebooks of one language.

    labs: all labs of the folder. in_step: compares a notebook with its file."""

    name: str
    folder: Path
    labs: Sequence[Lab]
    store: Store
    in_step: IsInStep
    locale: Path = field(default=LOCALE_FOLDER)

    def catalogue_path(self, lab: Lab) -> Path:
        return self.folder / "po" / self.name / f"{lab.number}.po"

    def learner_path(self, lab: Lab) -> Path:
        return self.folder / self.name / f"{lab.source.stem}.ipynb"

    def solution_path(self, lab: Lab) -> Path:
        return self.folder / self.name / "solutions" / f"{lab.source.stem}.ipynb"

    @property
    def package(self) -> files.CompiledCatalogue:
        """The catalogue of the package."""
        path, fix = self.locale / self.name / "LC_MESSAGES" / f"{DOMAIN}.po", f"{BUILD} --lang {self.name}"
        messages = self.package_messages()
        return files.CompiledCatalogue(path, self.name, messages, "the package", f"{fix} --update-po {PACKAGE}")

    def package_messages(self) -> list[files.Message]:
        """Messages of `minillama/lab`, and the names and units of predictions.

        Those of labs without a catalogue are left out, with their checks."""
        labs = self.started()
        named = [
            message
            for lab in labs
            for code in code_of(lab.solution)
            for message in prediction_messages(code, f"labs/src/{lab.source.name}")
        ]
        return package_messages(self.locale.parent, [lab.number for lab in labs]) + named

    def started(self) -> list[Lab]:
        """The labs that have a catalogue."""
        return [lab for lab in self.labs if self.catalogue_path(lab).exists()]

    def update(self, wanted: Sequence[str]) -> list[str]:
        """Refresh catalogues from the sources; without `wanted` all that exist. Returns a line for each."""
        lines = []
        for lab in self._wanted(wanted):
            path = self.catalogue_path(lab)
            catalogue = files.updated(files.read_catalogue(path, self.name), lab.messages, self.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_catalogue(catalogue, path, f"{self.name} of {lab.source.stem}", self.name)
            lines.append(f"lab {lab.number}: {files.counts(catalogue, lab.messages)}")
        if not wanted or PACKAGE in wanted:
            package = self.package
            package.update(f"{self.name} of minillama/lab")
            lines.append(f"package: {package.counts()}")
        return lines

    def write(self, wanted: Sequence[str]) -> list[str]:
        """Write the notebooks, and the .mo file; without `wanted` of all labs with a catalogue."""
        lines = []
        for lab in self._wanted(wanted):
            learner, solution = self.notebooks(lab)
            self.solution_path(lab).parent.mkdir(parents=True, exist_ok=True)
            self.store(learner, self.learner_path(lab))
            if not self.in_step(lab.solution, lab.executed):
                lines.append(f"lab {lab.number}: no solution: {lab.executed.name} is older than its source")
                continue
            executed = nbformat.read(lab.executed, as_version=4)
            self.store(with_outputs(solution, executed), self.solution_path(lab))
        if not wanted or PACKAGE in wanted:
            self.package.compile()
        return lines + self.counts(wanted)

    def notebooks(self, lab: Lab) -> tuple[NotebookNode, NotebookNode]:
        """The translated notebooks of a lab: the learner's and the solution, which has no outputs.

        Raises CodeStringError for a translation that does not fit into the code."""
        texts = files.translations(files.read_catalogue(self.catalogue_path(lab), self.name))
        learner, solution = (translated_notebook(each, texts, self.name) for each in (lab.learner, lab.solution))
        return learner, solution

    def counts(self, wanted: Sequence[str] = ()) -> list[str]:
        """A line for each lab with its numbers of translated, fuzzy and missing messages."""
        labs = self._wanted(wanted) if wanted else self.labs
        lines = [f"lab {lab.number}: {self._lab_counts(lab)}" for lab in labs]
        if not wanted or PACKAGE in wanted:
            lines.append(f"package: {self.package.counts()}")
        return lines

    def _lab_counts(self, lab: Lab) -> files.Counts:
        return files.counts(files.read_catalogue(self.catalogue_path(lab), self.name), lab.messages)

    def out_of_step(self) -> list[str]:
        """A line with file and fix for each outdated catalogue and notebook."""
        return [line for lab in self.started() for line in self._late(lab)] + self.package.out_of_step()

    def _late(self, lab: Lab) -> list[str]:
        """The lines of one lab."""
        path = self.catalogue_path(lab)
        name, build = f"{path.parent.name}/{path.name}", f"{BUILD} --lang {self.name}"
        catalogue = files.read_catalogue(path, self.name)
        if late := files.unknown(catalogue, lab.messages):
            fix = f"run {build} --update-po {lab.number}"
            return [f"{name} has other messages than its source, such as {late[0][:60]!r}: {fix}"]
        try:
            learner, solution = self.notebooks(lab)
        except CodeStringError as error:
            return [f"{name}: {error}"]
        is_kept = self._lab_counts(lab).is_complete or self.learner_path(lab).exists()
        pairs = [(learner, self.learner_path(lab))] if is_kept else []
        pairs += [(solution, self.solution_path(lab))] if self.solution_path(lab).exists() else []
        return [f"{name}: {problem}" for problem in files.problems(catalogue)] + [
            f"{file.relative_to(self.folder)} is older than source or catalogue: run {build} {lab.number}"
            for built, file in pairs
            if not self.in_step(built, file)
        ]

    def _wanted(self, wanted: Sequence[str]) -> list[Lab]:
        return [lab for lab in self.labs if lab.number in wanted] if wanted else self.started()
