"""The README and the page for llama.cpp users agree with the code: commands, families, tensor types, links."""

import re
import tomllib
from pathlib import Path

import pytest

from minillama.cli import ALIASES, COMMANDS, build_parser
from minillama.kernels import SUPPORTED
from minillama.model.architectures import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
LLAMA_CPP = (ROOT / "docs" / "llama-cpp.md").read_text(encoding="utf-8")
LABS = (ROOT / "docs" / "labs.md").read_text(encoding="utf-8")
MOST_WORDS = 900


def listed(heading: str) -> set[str]:
    """Words of a sentence that begins with a heading and ends with a full stop or a parenthesis."""
    sentence = LLAMA_CPP.partition(heading)[2]
    return set(re.findall(r"[A-Za-z0-9_]+", re.split(r"[.(]", sentence)[0]))


def families() -> set[str]:
    """The first column of the table of models."""
    rows = LLAMA_CPP.partition("| architecture | models |")[2].partition("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"[\w-]+", row.split("|")[1])}


def test_lists_are_complete() -> None:
    assert families() == set(FAMILIES)
    assert listed("Types of tensors:") == {kind.name for kind in SUPPORTED}


@pytest.mark.parametrize("text", [TEXT, LLAMA_CPP], ids=["README", "llama-cpp"])
def test_commands_exist(text: str) -> None:
    used = set(re.findall(r"(?:`|bin/|\| )minillama ([a-z][a-z-]*)\b", text))
    assert used and used <= set(COMMANDS) | set(ALIASES)
    assert set(COMMANDS) <= used, "a command is not in the text"
    build_parser()


@pytest.mark.parametrize("text", [TEXT, CHINESE, LABS], ids=["README", "README.zh-CN", "labs"])
def test_labs_are_those_that_exist(text: str) -> None:
    rows = set(re.findall(r"^\| (\d\d) ", text, re.MULTILINE))
    assert rows == {path.name[:2] for path in (ROOT / "labs").glob("[0-9][0-9]_*.ipynb")}
    planned = re.search(r"^Planned: (\d\d .*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert planned is None or not rows & set(re.findall(r"\b(\d\d) ", planned[1]))


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TEXT) or [""])
def test_links_lead_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists(), target


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    used = {name for group in re.findall(r"'\.\[([a-z,]+)\]'", TEXT) for name in group.split(",")}
    assert used and used <= set(extras)


def test_length() -> None:
    assert len(TEXT.split()) <= MOST_WORDS


def parts(text: str) -> dict[str, list[str]]:
    """What a translation leaves as it is."""
    return {
        "blocks of code": re.findall(r"```.*?```", text, re.DOTALL),
        "code in sentences": re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)),
        "links": [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("README")],
        "levels of headings": re.findall(r"^#+ ", text, re.MULTILINE),
        "numbers of labs": re.findall(r"^\| (\d\d) .*\| (\d+) \|$", text, re.MULTILINE),
        "rows of tables and items of lists": [line[:2] for line in text.splitlines() if line[:1] in ("|", "-")],
    }


TRANSLATED = pytest.mark.parametrize(
    ("page", "original"), [("README.zh-CN.md", "README.md"), ("docs/index.zh-CN.md", "docs/index.md")]
)


@TRANSLATED
def test_a_chinese_page_is_in_step(page: str, original: str) -> None:
    ours, theirs = (parts((ROOT / name).read_text(encoding="utf-8")) for name in (page, original))
    for part in theirs:
        assert ours[part] == theirs[part], part


@TRANSLATED
def test_a_chinese_page_is_chinese(page: str, original: str) -> None:
    """No sentence is left in English: outside of code, no four Latin words in a row."""
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|`[^`]+`|\([^)]+\)", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:\b[A-Za-z]+ ){3}[A-Za-z]+\b", prose)
