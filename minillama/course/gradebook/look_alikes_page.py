"""The page of look-alikes for the instructor: pairs of answers next to each other."""

import html
from collections.abc import Sequence
from pathlib import Path

from minillama.atomic_file import atomic_write
from minillama.course.gradebook.look_alikes import LookAlike
from minillama.course.html_page import html_page

MOST = 200  # pairs on the page
STYLE = (
    "body{max-width:80rem}pre{background:#f0f0f0;padding:.5rem;flex:1 1 20rem}"
    ".pair{display:flex;flex-wrap:wrap;gap:1rem}"
)
HINT = (
    "A hint, not a proof: short exercises have few right forms, and learners may work together or read the same page. "
    "Read both answers and talk to both learners before you decide anything. Answers that look like the solution, "
    "short ones and stubs are left out."
)


def write_look_alikes(path: Path, pairs: Sequence[LookAlike]) -> None:
    """Write the page; self-contained, without scripts and links."""
    parts = [f"<p><b>{HINT}</b></p>"]
    for pair in pairs[:MOST]:
        names = "code and names" if pair.same_names else "code with other names"
        heading = (
            f"lab {pair.lab}, {pair.item}: {pair.first} and {pair.second}, {100 * pair.similarity:.0f} % ({names})"
        )
        codes = "".join(f"<pre>{html.escape(code)}</pre>" for code in pair.codes)
        parts.append(f"<h2>{html.escape(heading)}</h2><div class='pair'>{codes}</div>")
    if len(pairs) > MOST:
        parts.append(f"<p>{len(pairs) - MOST} more pairs are not shown.</p>")
    page = html_page("Look-alikes", "\n".join(parts), STYLE, heading=f"Look-alikes: {len(pairs)}")
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))
