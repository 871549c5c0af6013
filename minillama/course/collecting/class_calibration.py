"""The calibration plot of a class: all learners' predictions against their measurements."""

import html
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from statistics import median

from minillama.atomic_file import atomic_write
from minillama.course.html_page import html_page
from minillama.course.marking.submissions import Submission
from minillama.lab.grading.lab_results import LabResults, Quantity, Results, read_results
from minillama.lab.grading.report_html import calibration
from minillama.lab.widgets.figure import format_number

KEPT = ("predictions", "measurements", "skipped", "changes")
WITHIN = 2.0  # a prediction within this factor is near
STYLE = "body{max-width:60rem}td,th{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #e6e6e6}"


def learner_results(submission: Submission) -> Results:
    """Predictions and measurements of a submission's results files; damaged parts are left out."""
    with tempfile.TemporaryDirectory() as folder:
        for path, data in submission.files.items():
            name = PurePosixPath(path).name
            if not path.endswith(".json") or not PurePosixPath(name).match("lab[0-9][0-9].json"):
                continue
            try:
                content = json.loads(data)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                with atomic_write(Path(folder, name)) as file:
                    file.write(json.dumps({key: content[key] for key in KEPT if key in content}).encode())
        return read_results(Path(folder))


def class_results(found: Mapping[str, Results]) -> dict[str, LabResults]:
    """The results of all learners by lab; each name begins with the learner's."""
    merged = {}
    for lab in sorted({lab for results in found.values() for lab in results}):
        own = [(learner, results[lab]) for learner, results in found.items() if lab in results]
        named = {
            part: {f"{learner}: {name}": value for learner, each in own for name, value in getattr(each, part).items()}
            for part in ("predictions", "measurements")
        }
        skipped = frozenset(f"{learner}: {name}" for learner, each in own for name in each.skipped)
        merged[lab] = LabResults(
            lab, "", {}, {}, named["predictions"], named["measurements"], {}, {}, {}, {}, {}, None, skipped
        )  # fmt: skip
    return merged


def summary(found: Mapping[str, Results]) -> list[tuple[str, ...]]:
    """A row for each prediction: lab, name, learners, medians, and how many are near."""
    pairs: dict[tuple[str, str], list[tuple[Quantity, Quantity]]] = {}
    for results in found.values():
        for lab, each in results.items():
            for name, pair in each.measured_predictions().items():
                pairs.setdefault((lab, name), []).append(pair)
    return [(lab, name, *_row(each)) for (lab, name), each in sorted(pairs.items())]


def _row(pairs: Sequence[tuple[Quantity, Quantity]]) -> tuple[str, ...]:
    said, came = (median(quantity.value for quantity in column) for column in zip(*pairs, strict=True))
    factors = [max(a.value / b.value, b.value / a.value) for a, b in pairs if a.value > 0 and b.value > 0]
    off = f"{format_number(median(factors))} times" if factors else "-"
    near = sum(factor <= WITHIN for factor in factors)
    unit = pairs[0][0].unit
    return str(len(pairs)), f"{format_number(said)} {unit}", f"{format_number(came)} {unit}", off, str(near)


def write_calibration(path: Path, found: Mapping[str, Results]) -> int:
    """Write the page, self-contained and without scripts; the number of measured predictions."""
    head = ("lab", "prediction", "learners", "median predicted", "median measured", "median off by", "within 2 times")
    rows = summary(found)
    table = "".join(
        f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>"
        for tag, row in (("th", head), *(("td", row) for row in rows))
    )
    figure = calibration(class_results(found)).static_html()
    body = (
        f"<p>{len(found)} learners. Right predictions are on the diagonal; skipped ones are crosses on the edge.</p>"
        f"{figure}<table>{table}</table>"
    )
    page = html_page("Class calibration", body, STYLE, has_images=True)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return sum(int(row[2]) for row in rows)
