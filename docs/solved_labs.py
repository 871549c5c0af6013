"""MkDocs hook: the solved labs as pages, with their stored outputs; nothing is run.

`labs/solutions/*.ipynb` become pages of the site, and the Chinese ones where they are built:
python -m minillama.lab.build --lang zh_CN. Formulas become MathML, so that no page needs a script of another site.
"""

import html
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LABS = Path(__file__).resolve().parents[1] / "labs"
# Folder of notebooks -> pages, title, first paragraph, line above each page, words for a solution.
LANGUAGES = {
    "solutions": (
        "solved", "Solved labs",
        "The notebooks of `labs/solutions/`, as they were run on two cores of an Intel Xeon with AVX-512 and AMX. "
        "Your numbers are others. Solve the exercises before you read them here.",
        "The solved notebook, with the outputs of one run. The exercise is `labs/{name}.ipynb`: "
        "`minillama lab {number}`.",
        "Solution",
    ),
    "zh_CN/solutions": (
        "solved/zh_CN", "已解答的实验",
        "`labs/solutions/` 中 notebook 的中文版，输出是在两个核心的 Intel Xeon（AVX-512、AMX）上运行得到的。"
        "输出的文字是英文，您机器上的数字会不同。请先自己做练习，再来看这里。",
        "已解答的 notebook，附一次运行的输出。"
        "练习在 `labs/zh_CN/{name}.ipynb` 中：`minillama lab {number} --lang zh`。",
        "解答",
    ),
}  # fmt: skip

_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_FORBIDDEN = re.compile(r"<(script|iframe|link|object)\b|(src|href)\s*=\s*[\"']?(https?:)?//", re.IGNORECASE)

Notebook = dict[str, Any]


def on_config(config: Any) -> Any:
    """Put the first page of each language into the navigation, after the labs."""
    entries = [{title: f"{pages}/index.md"} for folder, (pages, title, *_) in LANGUAGES.items() if notebooks(folder)]
    place = next(number for number, entry in enumerate(config.nav) if "Labs" in entry) + 1
    config.nav[place:place] = entries
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, and the first page of each language."""
    from mkdocs.structure.files import File

    for name, text in pages(repository(config.repo_url)).items():
        files.append(File.generated(config, name, content=text))
    return files


def repository(address: str | None) -> str | None:
    """`owner/name` on GitHub, of MINILLAMA_REPOSITORY or else of mkdocs.yml's repo_url; None without one."""
    given = os.environ.get("MINILLAMA_REPOSITORY") or (address or "").partition("github.com/")[2]
    return given.strip("/").removesuffix(".git") or None


def badges(repository: str, notebook: str, images: str) -> str:
    """Links that open a learner's notebook in Colab and in Binder; the images are the site's own."""
    colab = f"https://colab.research.google.com/github/{repository}/blob/HEAD/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/{notebook}"
    return (
        f"[![Open in Colab]({images}/open-in-colab.svg)]({colab}) "
        f"[![Open in Binder]({images}/open-in-binder.svg)]({binder})"
    )


def pages(repository: str | None = None) -> dict[str, str]:
    """Markdown of all pages, by path in the site's sources.

    repository: `owner/name` on GitHub, for the badges.
    """
    made: dict[str, str] = {}
    for folder, (target, title, introduction, line, solution) in LANGUAGES.items():
        rows = []
        for path in notebooks(folder):
            notebook = json.loads(path.read_text(encoding="utf-8"))
            head = f"*{line.format(name=path.stem, number=int(path.name[:2]))}*"
            if repository:
                exercise = f"labs/{folder.removesuffix('solutions')}{path.name}"
                head += "\n\n" + badges(repository, exercise, "../" * (target.count("/") + 1) + "images")
            made[f"{target}/{path.stem}.md"] = page(notebook, head, solution)
            rows.append(f"- [{title_of(notebook)}]({path.stem}.md)")
        if rows:
            made[f"{target}/index.md"] = "\n\n".join([f"# {title}", introduction, "\n".join(rows)]) + "\n"
    return made


def notebooks(folder: str) -> list[Path]:
    """The solved notebooks of a language, in order; none if they are not built."""
    return sorted((LABS / folder).glob("[0-9][0-9]_*.ipynb"))


def title_of(notebook: Notebook) -> str:
    """The first heading."""
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return re.search(r"^# (.+)$", text, re.MULTILINE)[1]  # type: ignore[index]


def page(notebook: Notebook, line: str, solution: str) -> str:
    """Markdown of a notebook, with a paragraph below its title."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(markdown_cell(source))
            continue
        if "solution" in cell["metadata"].get("tags", []):
            parts.append(f"**{solution}**")
        parts.append(fenced(source, "python"))
        for output in cell["outputs"]:
            parts += output_blocks(output)
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, line, rest.strip(), *parts[1:]]) + "\n"


def markdown_cell(source: str) -> str:
    """A text cell: formulas as MathML, and folded hints that are still markdown."""
    pieces = _CODE.split(source)
    pieces[::2] = [_MATH.sub(_formula, piece) for piece in pieces[::2]]
    return re.sub(r"<details(?=>)", '<details markdown="1"', "".join(pieces))


def _formula(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    return convert((match[1] or match[2]).strip(), display="block" if match[1] else "inline").replace("\n", " ")


def output_blocks(output: Notebook) -> Iterator[str]:
    """Blocks of an output: text, or the HTML of a figure or check, which needs no other file."""
    if output["output_type"] == "stream":
        yield fenced("".join(output["text"]), "text")
        return
    if output["output_type"] == "error":
        yield fenced("\n".join(output["traceback"]), "text")
        return
    data = output["data"]
    if "text/html" in data:
        text = "".join(data["text/html"])
        if found := _FORBIDDEN.search(text):
            raise ValueError(f"an output has {html.escape(found[0])}; pages load nothing from other sites")
        yield text
    else:
        yield fenced("".join(data["text/plain"]), "text")


def fenced(text: str, language: str) -> str:
    """A block of code, with a fence longer than any in it."""
    text = text.strip("\n")
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence} {language}\n{text}\n{fence}" if text else ""
