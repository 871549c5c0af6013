"""The page of look-alikes for the instructor: pairs of answers next to each other."""

import html
from collections.abc import Sequence
from pathlib import Path

from minillama.atomic_file import atomic_write
from minillama.course.gradebook.look_alikes import LookAlike

MOST = 200  # pairs on the page
STYLE = (
    "body{font:16px/1.5 Helvetica,Arial,sans-serif;color:#222;max-width:80rem;margin:2rem auto;padding:0 1rem}"
    "pre{overflow-x:auto;background:#f0f0f0;padding:.5rem;flex:1 1 20rem}.pair{display:flex;flex-wrap:wrap;gap:1rem}"
)
HINT = (
    "A hint, not a proof: short exercises have few right forms, and learners may work together or read the same page. "
    "Read both answers and talk to both learners before you decide anything. Answers that look like the solution, "
    "short ones and stubs are left out."
)


def write_look_alikes(path: Path, pairs: Sequence[LookAlike]) -> None:
    """Write the page; self-contained, without scripts and links."""
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Look-alikes</title>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style></head><body><h1>Look-alikes: {len(pairs)}</h1><p><b>{HINT}</b></p>"
    ]
    for pair in pairs[:MOST]:
        names = "code and names" if pair.same_names else "code with other names"
        heading = (
            f"lab {pair.lab}, {pair.item}: {pair.first} and {pair.second}, {100 * pair.similarity:.0f} % ({names})"
        )
        codes = "".join(f"<pre>{html.escape(code)}</pre>" for code in pair.codes)
        parts.append(f"<h2>{html.escape(heading)}</h2><div class='pair'>{codes}</div>")
    if len(pairs) > MOST:
        parts.append(f"<p>{len(pairs) - MOST} more pairs are not shown.</p>")
    with atomic_write(path) as file:
        file.write("\n".join([*parts, "</body></html>\n"]).encode("utf-8", "replace"))
