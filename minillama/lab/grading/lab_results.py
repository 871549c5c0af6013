"""Strict reader of the labs' records.

An entry that the labs did not write is left out, and a line says so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import plotly.graph_objects as go

from minillama.errors import FormatError, ResourceError
from minillama.lab import lab_record, results_file
from minillama.lab.language import message, translate
from minillama.lab.plots.roofline_plots import Dot
from minillama.lab.widgets.figure import Figure
from minillama.measure.limits.roofline import Roofline

MOST_PROBLEMS = 20  # lines for one file
T = TypeVar("T")
TITLES = {
    "00": message("Install and doctor"),
    "01": message("Your machine's roofline"),
    "02": message("GGUF from bytes"),
    "03": message("From tokens to logits"),
    "04": message("Sampling"),
    "05": message("Prefill, decode, KV cache"),
    "06": message("Evaluate"),
    "07": message("Quantise"),
    "08": message("Optimise one device"),
    "09": message("Shard"),
    "10": message("Next to llama.cpp"),
    "11": message("Lying benchmarks"),
    "12": message("The report"),
    "13": message("Many readers"),
    "14": message("The same beginning"),
    "15": message("Guess and check"),
    "16": message("Not all attention"),
    "17": message("A kernel of your own"),
}


@dataclass(frozen=True)
class Quantity:
    """A number with its unit."""

    value: float
    unit: str
    is_above_roof: bool = False  # a share of a roof that cannot be right


@dataclass(frozen=True)
class LabResults:
    """Records of one lab, made by `read_results`; missing parts are empty."""

    lab: str
    written: str
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    predictions: Mapping[str, Quantity]
    measurements: Mapping[str, Quantity]
    checks: Mapping[str, bool]  # True: passed
    dots: Mapping[str, Dot]
    figures: Mapping[str, Figure]
    texts: Mapping[str, tuple[str, str]]  # question and answer
    decisions: Mapping[str, object]  # `minillama.lab.grading.decisions` reads them
    roof: Roofline | None
    skipped: frozenset[str] = frozenset()  # predictions that were not made
    changed: frozenset[str] = frozenset()  # predictions with a later change of mind
    problems: tuple[str, ...] = ()  # a line for each part that was left out

    def measured_predictions(self) -> dict[str, tuple[Quantity, Quantity]]:
        """Predictions that have a measurement: (predicted, measured) by name."""
        return {name: (said, self.measurements[name]) for name, said in self.predictions.items()
                if name in self.measurements}  # fmt: skip


Results = Mapping[str, LabResults]


def read_results(folder: Path) -> dict[str, LabResults]:
    """Records of a folder by lab number, with those in this kernel's memory.

    A damaged file or entry is left out and named in `problems`. Raises ResourceError if there is no folder.
    """
    paths = {path.name: path for path in [*_files(folder), *results_file.unsaved_files(folder)]}
    if not paths and not folder.is_dir():
        raise ResourceError(f"no folder {folder}: run a lab first, it writes its results there")
    return {path.stem[3:]: _read(path) for _, path in sorted(paths.items())}


def results_so_far() -> dict[str, LabResults]:
    """Records next to this notebook; empty if there are none."""
    try:
        return read_results(lab_record.results_folder())
    except ResourceError:
        return {}


def _files(folder: Path) -> list[Path]:
    """The files of records in a folder."""
    try:
        return [path for path in folder.iterdir() if path.match("lab[0-9][0-9].json")]
    except OSError:  # no folder, or an unreadable one
        return []


def measured(results: Results, lab: str, name: str) -> Quantity | None:
    """One recorded measurement; None if there is none."""
    return results[lab].measurements.get(name) if lab in results else None


def measurements_text(results: Results) -> str:
    """Every lab's measurements by name; of a damaged file the problems."""
    lines = []
    for lab, title in TITLES.items():
        if lab not in results:
            lines.append(translate("lab {lab} {title}: not done here", lab=lab, title=translate(title)))
            continue
        count = len(results[lab].measurements)
        lines.append(translate("lab {lab} {title}: {count} measurements", lab=lab, title=translate(title), count=count))
        lines += [f"       {problem}" for problem in results[lab].problems]
        found = results[lab].measurements.items()
        lines += [f"       {name!r}: {value.value:.4g} {translate(value.unit)}" for name, value in found]
    return "\n".join(lines)


class _Entry:
    """A JSON value with its path in the file."""

    def __init__(self, value: object, where: str, lab: str) -> None:
        self.value, self.where, self.lab = value, where, lab

    def refuse(self, wanted: str) -> FormatError:
        told = repr(self.value)
        told = told if len(told) <= 40 else f"{told[:37]}..."
        return FormatError(
            translate(
                "{where} is {value}, not {wanted}; it is left out: run lab {lab} again",
                where=self.where, value=told, wanted=translate(wanted), lab=self.lab,
            )
        )  # fmt: skip

    def get(self, name: str, default: object = None) -> "_Entry":
        return _Entry(self.fields().get(name, default), f"{self.where}: {name}", self.lab)

    def items(self) -> list[tuple[str, "_Entry"]]:
        return [(name, self.get(name)) for name in self.fields()]

    def fields(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self.refuse(message("a group of entries"))
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.refuse(message("a text"))
        return self.value

    def number(self) -> float:
        found = lab_record.finite(self.value)
        if found is None:
            is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
            raise self.refuse(message("a finite number") if is_number else message("a number"))
        return found

    def positive(self) -> float:
        if self.number() <= 0:
            raise self.refuse(message("a positive number"))
        return self.number()

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refuse(message("true or false"))
        return self.value


class _Reader:
    """Reads the parts of one file; collects a line for each part that is refused."""

    def __init__(self, whole: _Entry) -> None:
        self.whole = whole
        self.problems: list[str] = []

    def value(self, entry: _Entry, read: Callable[[_Entry], T], default: T) -> T:
        try:
            return read(entry)
        except FormatError as error:
            self.problems.append(str(error))
            return default

    def section(self, name: str, read: Callable[[_Entry], T]) -> dict[str, T]:
        """The entries of a section that `read` accepts."""
        items = self.value(self.whole.get(name, {}), _Entry.items, [])
        found = {entry_name: self.value(entry, lambda e: (read(e),), ()) for entry_name, entry in items}
        return {entry_name: parts[0] for entry_name, parts in found.items() if parts}


def _read(path: Path) -> LabResults:
    lab = path.stem[3:]
    try:
        content, problem = results_file.parse(path), ""
    except (OSError, ValueError) as error:
        content = {}
        reason = results_file.reason(error)
        problem = translate("{file} {reason}; it is left out: run lab {lab} again", file=path, reason=reason, lab=lab)
    whole = _Entry(results_file.merged(results_file.absolute(path), content), str(path), lab)
    reader = _Reader(whole)
    return LabResults(
        lab=lab,
        written=reader.value(whole.get("written", ""), _Entry.text, ""),
        machine=reader.value(whole.get("machine", {}), _Entry.fields, {}),
        versions=reader.section("versions", _Entry.text),
        predictions=reader.section("predictions", lambda e: Quantity(e.get("said").number(), e.get("unit", "").text())),
        measurements=reader.section(
            "measurements",
            lambda e: Quantity(e.get("value").number(), e.get("unit", "").text(), e.get("above_roof", False).truth()),
        ),
        checks=reader.section("checks", lambda e: e.get("passed").truth()),
        dots=reader.section("dots", lambda e: Dot(e.get("intensity").positive(), e.get("flops").positive())),
        figures=reader.section("pictures", _figure),
        texts=reader.section("texts", lambda e: (e.get("question", "").text(), e.get("text").text())),
        decisions=whole.get("decisions", {}).fields(),
        roof=reader.value(whole.get("roofline", {}), _roof, None),
        skipped=frozenset(reader.section("skipped", _Entry.fields)),
        changed=frozenset(reader.section("changes", lambda e: e.value)),
        problems=(problem,) * bool(problem) + tuple(reader.problems[:MOST_PROBLEMS]),
    )


def _figure(entry: _Entry) -> Figure:
    figure = entry.get("figure")
    try:
        return Figure(go.Figure(figure.fields()), entry.get("text").text())
    except (ValueError, TypeError, RecursionError):  # plotly's reason takes a page
        raise figure.refuse(message("a figure that plotly knows")) from None


def _roof(section: _Entry) -> Roofline | None:
    if "own" not in section.fields():
        return None
    own = section.get("own")
    return Roofline(
        own.get("bandwidth").positive(),
        own.get("flops").positive(),
        own.get("arithmetic").text(),
        int(own.get("threads").positive()),
        own.get("device").text(),
    )
