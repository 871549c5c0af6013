"""One self-contained HTML page for each learner, in the learner's language."""

import re
import unicodedata
from functools import partial
from pathlib import Path

from minillama.atomic_file import atomic_write
from minillama.course.learner_texts import learner_text
from minillama.course.marking.class_marks import NOT_HANDED_IN
from minillama.course.marking.marks import LearnerMark, State
from minillama.lab.grading.html_template import html_template
from minillama.lab.grading.lab_results import TITLES

NEXT = {State.PASSED: "✔", State.NOT_YET: "✘", State.STOPPED: "✘", State.BY_READER: "…"}
LONGEST_CODE = 20_000  # characters of an exercise's cell on the page


def page_name(learner: str, taken: set[str]) -> str:
    """A free file name for a learner's page.

    Names that differ only in the case of letters are the same on some systems."""
    plain = unicodedata.normalize("NFC", learner)
    stem = re.sub(r"[^\w.-]+", "_", plain).strip("._")[:80] or "learner"
    name, number = f"{stem}.html", 2
    while name.casefold() in taken:
        name, number = f"{stem}-{number}.html", number + 1
    taken.add(name.casefold())
    return name


def write_page(path: Path, mark: LearnerMark) -> None:
    """Write a learner's page."""
    with atomic_write(path) as file:
        file.write(feedback_page(mark).encode("utf-8", "replace"))


def feedback_page(mark: LearnerMark) -> str:
    """The page as HTML, without links and scripts."""
    text = partial(learner_text, mark.language)
    labs = [
        {
            "title": f"{text('lab {lab}', lab=lab.lab)} · {TITLES.get(lab.lab, '')}",
            "points": text("{earned:g} of {possible:g} points", earned=lab.earned, possible=lab.possible),
            "reason": text(lab.reason) if lab.reason else "",
            "file": lab.file,
            "items": [
                {
                    "sign": NEXT.get(item.state, "○"),
                    "state": text(str(item.state)),
                    "kind": item.state.name.lower(),
                    "title": item.title,
                    "message": item.message,
                    "note": item.note,
                    "code": item.code[:LONGEST_CODE],
                }
                for item in lab.items
                if lab.reason != NOT_HANDED_IN
            ],
        }
        for lab in mark.labs.values()
    ]
    return html_template(Path(__file__).with_name("feedback.html.jinja")).render(
        language=mark.language.replace("_", "-").replace("zh-CN", "zh-Hans"),
        heading=text("Feedback"),
        learner=mark.learner,
        total=text("{earned:g} of {possible:g} points", earned=mark.earned, possible=mark.possible),
        how=text(
            "Your notebook was read, and only the exercises' cells ran, with hidden inputs. "
            "Your results files were not used."
        ),
        notes=mark.notes,
        labs=labs,
        your_code=text("your code"),
    )
