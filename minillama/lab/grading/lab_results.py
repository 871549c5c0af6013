"""Strict reader of the labs' records.

A file that the labs did not write is refused with a one-line error."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from minillama.errors import FormatError, ResourceError, first_line
from minillama.lab.plots.roofline_plots import Dot
from minillama.lab.widgets.figure import Figure
from minillama.measure.limits.roofline import Roofline

LARGEST = 32 << 20  # bytes of a file of records; the figures of a lab take some hundred kilobytes
TITLES = {
    "00": "Install and doctor",
    "01": "Your machine's roofline",
    "02": "GGUF from bytes",
    "03": "From tokens to logits",
    "04": "Sampling",
    "05": "Prefill, decode, KV cache",
    "06": "Evaluate",
    "07": "Quantise",
    "08": "Optimise one device",
    "09": "Shard",
    "10": "Compare with llama.cpp",
    "11": "Lying benchmarks",
    "12": "The report",
}


@dataclass(frozen=True)
class Quantity:
    """A number with its unit."""

    value: float
    unit: str


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

    def measured_predictions(self) -> dict[str, tuple[Quantity, Quantity]]:
        """Predictions that have a measurement: (predicted, measured) by name."""
        return {name: (said, self.measurements[name]) for name, said in self.predictions.items()
                if name in self.measurements}  # fmt: skip


Results = Mapping[str, LabResults]


def read_results(folder: Path) -> dict[str, LabResults]:
    """Records of all labs in a folder, by lab number.

    Raises ResourceError for a missing folder, FormatError for a file that the labs did not write.
    """
    if not folder.is_dir():
        raise ResourceError(f"no folder {folder}: run a lab first, it writes its results there")
    return {path.stem[3:]: _read(path) for path in sorted(folder.glob("lab[0-9][0-9].json"))}


def measured(results: Results, lab: str, name: str) -> Quantity | None:
    """One recorded measurement; None if there is none."""
    return results[lab].measurements.get(name) if lab in results else None


class _Entry:
    """A JSON value with its path in the file."""

    def __init__(self, value: object, where: str, lab: str) -> None:
        self.value, self.where, self.lab = value, where, lab

    def refuse(self, wanted: str) -> FormatError:
        told = repr(self.value)
        told = told if len(told) <= 40 else f"{told[:37]}..."
        return FormatError(f"{self.where} is {told}, not {wanted}; delete the file, or run lab {self.lab} again")

    def get(self, name: str, default: object = None) -> "_Entry":
        return _Entry(self.fields().get(name, default), f"{self.where}: {name}", self.lab)

    def items(self) -> list[tuple[str, "_Entry"]]:
        return [(name, self.get(name)) for name in self.fields()]

    def fields(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self.refuse("a group of entries")
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.refuse("a text")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.refuse("a number")
        try:
            finite = math.isfinite(self.value)
        except OverflowError:  # a whole number with hundreds of digits
            finite = False
        if not finite:
            raise self.refuse("a finite number")
        return float(self.value)

    def positive(self) -> float:
        if self.number() <= 0:
            raise self.refuse("a positive number")
        return self.number()

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refuse("true or false")
        return self.value


def _read(path: Path) -> LabResults:
    lab = path.stem[3:]
    if path.stat().st_size > LARGEST:
        raise FormatError(f"{path} has more than {LARGEST >> 20} MB, too much for records; delete it, or run lab {lab}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not readable json ({first_line(error)}); delete it, or run lab {lab} again"
        ) from None
    whole = _Entry(content, str(path), lab)

    def section(name: str) -> list[tuple[str, _Entry]]:
        return whole.get(name, {}).items()

    return LabResults(
        lab=lab,
        written=whole.get("written", "").text(),
        machine=whole.get("machine", {}).fields(),
        versions={name: entry.text() for name, entry in section("versions")},
        predictions={n: Quantity(e.get("said").number(), e.get("unit", "").text()) for n, e in section("predictions")},
        measurements={
            n: Quantity(e.get("value").number(), e.get("unit", "").text()) for n, e in section("measurements")
        },
        checks={name: entry.get("passed").truth() for name, entry in section("checks")},
        dots={n: Dot(e.get("intensity").positive(), e.get("flops").positive()) for n, e in section("dots")},
        figures={name: _figure(entry) for name, entry in section("pictures")},
        texts={n: (e.get("question", "").text(), e.get("text").text()) for n, e in section("texts")},
        decisions=whole.get("decisions", {}).fields(),
        roof=_roof(whole.get("roofline", {})),
    )


def _figure(entry: _Entry) -> Figure:
    figure = entry.get("figure")
    try:
        return Figure(go.Figure(figure.fields()), entry.get("text").text())
    except (ValueError, TypeError):  # plotly's reason takes a page
        raise figure.refuse("a figure that plotly knows") from None


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
