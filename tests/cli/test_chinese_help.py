"""Help and errors in Chinese: whole catalogues, the same options and values, and no cost for English users."""

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.cli import COMMANDS, build_parser, command_messages, main
from minillama.cli.course import SUBCOMMANDS
from minillama.cli.translation import command_texts, error_patterns, wide_lines
from minillama.cli.translation.command_texts import ERRORS, HELP, LOCALE_FOLDER, error_text, terminal_language
from minillama.lab.translation import catalogue_files as files
from minillama.lab.translation import command_line
from minillama.measure.tables import display_width
from minillama.printable_text import MAX_LINE, printable_line

LANGUAGE = "zh_CN"
CHINESE = "[\u4e00-\u9fff]"
PATTERNS = command_texts._patterns(LANGUAGE)
TEMPLATES = PATTERNS._templates
# Options, numbers, and names of variables and columns: the same in each language.
FIXED = re.compile(r"(?<![A-Za-z0-9])--?[A-Za-z][\w-]*|(?<![\w.])\d+(?:\.\d+)?|[A-Z]+_[A-Z_.]+", re.ASCII)


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILLAMA_LANG", "zh")


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = build_parser([command.split()[0]])
    return next(each for each in command_messages._parsers(parser) if each.prog == f"minillama {command}")


def test_the_catalogues_are_whole() -> None:
    assert command_line.out_of_step(LANGUAGE) == []
    lines = command_line.counts(LANGUAGE)
    assert [re.sub(r"\d{3,} translated", "all translated", line) for line in lines] == [
        f"{name}: all translated, 0 fuzzy, 0 missing" for name in (HELP, ERRORS)
    ]


@pytest.mark.parametrize("name", [HELP, ERRORS])
def test_options_and_numbers_stay(name: str) -> None:
    path = LOCALE_FOLDER / LANGUAGE / "LC_MESSAGES" / f"{name}.po"
    for text, translation in files.translations(files.read_catalogue(path, LANGUAGE)).items():
        fixed = [Counter(FIXED.findall(each.replace("Ctrl-C", ""))) for each in (text, translation)]
        assert fixed[0] == fixed[1], text
        assert text.endswith("\n") == translation.endswith("\n"), text
        assert re.search(CHINESE, translation) or not re.search("[a-z]{4}", re.sub(r"\{\w+\}", "", text)), text
        assert not re.search(rf"{CHINESE}[,;:?!]", translation), f"punctuation of Chinese: {translation}"
        assert not re.search(rf"{CHINESE}[A-Za-z0-9]|[A-Za-z0-9]{CHINESE}", translation), f"a space: {translation}"


@pytest.mark.parametrize("command", [*COMMANDS, *(f"course {name}" for name in SUBCOMMANDS)])
def test_help_of_a_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    english = parser_of(command).format_help()
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    parser = parser_of(command)
    found = parser.format_help()
    assert re.findall(r"^  -.*?(?=  |$)", found, re.M) == re.findall(r"^  -.*?(?=  |$)", english, re.M)
    assert english.startswith("usage: ") and found.startswith("用法：")
    usages = [re.sub(r"^usage: |^用法：", "", text.partition("\n\n")[0]).split() for text in (english, found)]
    assert usages[0] == usages[1]
    helps = [action.help % {"prog": ""} for action in parser._actions if action.help not in (None, argparse.SUPPRESS)]
    assert helps and not [text for text in helps if text in found and re.search("[a-z]{3}", text)]
    assert max(map(display_width, found.splitlines())) <= 120
    columns = {display_width(line[: re.search(CHINESE, line).start()]) for line in found.splitlines()
               if re.match(rf"  -\S.* {{2,}}{CHINESE}", line)}  # fmt: skip
    assert len(columns) <= 1 or command in ("run", "cli", "serve"), "one column of meanings"


def test_help_of_minillama(chinese: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "选项：\n" in shown and "命令：\n" in shown and "回答一个提示，然后退出" in shown
    assert main(["--version"]) == 0
    assert re.fullmatch(r"minillama \d\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nosuch", "没有命令 nosuch；可用的命令有：run, cli, "),
        ("run --temperatur 1", "无效的参数：--temperatur（是不是 --temperature？）；请看 minillama run --help"),
        ("run -t x", "-t x: 应为整数；请看 minillama run --help"),
        ("run -c", "-c：需要一个值；请看 minillama run --help"),
        ("bench -p 1,5-2", "-p 1,5-2: '5-2' 的终点在起点之前；请看 minillama bench --help"),
        ("convert", "缺少必需的参数：DIR；请看 minillama convert --help"),
        ("run -npl 3", "-npl：不是 minillama run 的选项，而是 minillama batched-bench 的"),
        ("run --lora a.gguf x", "--lora: 还不支持 LoRA 适配器；请把适配器合并到 GGUF 文件中"),
        ("run -f no/such:file", "no/such:file: 没有这个文件或文件夹"),
        ("run -m no/such.gguf x", "no/such.gguf：没有这个文件；也没有文件夹 no"),
        ("inspect README.md", "README.md 不是 GGUF 文件：它的开头是 b'# mi'，不是 b'GGUF'"),
    ],
)
def test_errors(
    words: str, line: str, chinese: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert main(words.split()) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith(f"minillama: error: {line}")


def test_warnings(chinese: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--numa", "distribute", "-m", "no/such.gguf", "x"]) == 2
    assert "minillama: warning: --numa distribute 不起作用：请在外部用 numactl\n" in capsys.readouterr().err


def test_the_exception_stays_english(chinese: None) -> None:
    with pytest.raises(Exception, match="-t x: expected a whole number; see minillama run --help"):
        build_parser(["run"]).parse_args(["run", "-t", "x"])


def filled(template: error_patterns.Template, text: str, values: list[str]) -> str:
    return text.format(**dict(zip(dict.fromkeys(template.fields), values, strict=True)))


SOURCES = list(PATTERNS._catalogue)


def test_each_template_is_recognised() -> None:
    for text, template in zip(SOURCES, TEMPLATES, strict=True):
        names = list(dict.fromkeys(template.fields))
        known = {field: "use on or off" for field in names if field in error_patterns.NESTED}
        values = [known.get(field, f"v{number}") for number, field in enumerate(names)]
        shown = [value if field not in known else "请用 on 或 off" for field, value in zip(names, values, strict=True)]
        expected = filled(template, template.translation, shown)
        assert PATTERNS.translated(filled(template, text, values)) == expected


@given(st.sampled_from(range(len(SOURCES))), st.data())
def test_values_stay(number: int, data: st.DataObject) -> None:
    """A message of wild values is translated with these values, or not at all."""
    template = TEMPLATES[number]
    value = st.text("a1/.-: ;,'\"{}%\\中：；（", max_size=12)
    values = [data.draw(value) for _ in dict.fromkeys(template.fields)]
    text = filled(template, SOURCES[number], values)
    assert PATTERNS.translated(text) in (text, filled(template, template.translation, values))


def test_bare_templates_change_nothing() -> None:
    """A colon may be a part of a value, so those that only join a value and a message stay."""
    bare = [(text, template) for text, template in zip(SOURCES, TEMPLATES, strict=True) if template.is_bare]
    assert len(bare) >= 3 and all(text == template.translation for text, template in bare)
    assert PATTERNS.translated("a: b: there is no text in it") == "a: b：其中没有文本"


def test_ambiguous_and_long_messages() -> None:
    for text in (
        "no command a; the commands are: b; the commands are: c",
        "no command a exists; the commands are: b: expected a number",
        "", "unknown", ": ", ": " * 300, "; see a --help" * 40, printable_line("x is " + "a; b: " * 500),
    ):  # fmt: skip
        assert PATTERNS.translated(text) == text or text.startswith("; see")
    assert len(": " * 300) > MAX_LINE


def test_language_of_a_terminal() -> None:
    assert terminal_language({"LANG": "zh_CN.UTF-8"}) == terminal_language({"LC_ALL": "zh_CN.utf8"}) == LANGUAGE
    assert terminal_language({"LANG": "zh_CN.GB18030"}) == terminal_language({"LANG": "zh_TW.Big5@x"}) == "en"
    assert terminal_language({"LANG": "zh_CN.GB18030", "MINILLAMA_LANG": "zh"}) == LANGUAGE
    assert terminal_language({"LANG": "de_DE.UTF-8"}) == terminal_language({}) == "en"


PROGRAM = """
import sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from minillama.cli import main
main(["--help"]), main(["run", "-t", "x"])
print([name.rpartition("/")[2] for name in opened if name.endswith(".mo")], "numpy" in sys.modules)
"""


@pytest.mark.parametrize(
    ("language", "end"), [("en", "[] False"), ("zh", "['minillama-cli.mo', 'minillama-cli-errors.mo'] False")]
)
def test_catalogues_that_are_read(language: str, end: str) -> None:
    environment = {**os.environ, "MINILLAMA_LANG": language}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == end


def test_a_damaged_catalogue_is_english(
    chinese: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / LANGUAGE / "LC_MESSAGES"
    folder.mkdir(parents=True)
    whole = (LOCALE_FOLDER / LANGUAGE / "LC_MESSAGES" / f"{HELP}.mo").read_bytes()
    monkeypatch.setattr(command_texts, "LOCALE_FOLDER", tmp_path)
    for data in (None, b"", b"no catalogue", whole[:100], whole[:-100]):
        command_texts._catalogue.cache_clear(), command_texts._patterns.cache_clear()
        if data is not None:
            (folder / f"{HELP}.mo").write_bytes(data)
        assert main(["lab", "--help"]) == 0 and "usage: minillama lab" in capsys.readouterr().out
        assert error_text("not a JSON object") == "not a JSON object"
    command_texts._catalogue.cache_clear(), command_texts._patterns.cache_clear()


@given(st.text("词元，。（）：ab- 1", max_size=80), st.integers(4, 30))
def test_wide_lines(text: str, width: int) -> None:
    lines = wide_lines.wide_lines(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    for line in lines:
        assert line == line.strip() and line
        assert display_width(line) <= width or len(wide_lines._UNIT.findall(line)) == 1
    assert not [line for line in lines[1:] if re.match("[，。）：]", line)] or re.search(r"\s[，。）：]", text)


CODE = """
def check(path, count, error):
    if not path:
        raise OptionError(f"no file {path}; check {shown(path)} and {path}")
    logger.warning("%s has {no} effect on %.3r", path.name, names[0])
    self.error(f"{path}: expected {'a value' if count == 1 else f'{count} values'}")
    raise ResourceError(f"{path}: {error}") from error
    raise ValueError(f"{path}{error} is not here")
    raise FormatError(f"{path} is {error}")
    return f"no message at all {path}"
"""


def test_templates_of_code() -> None:
    assert set(command_messages.templates(CODE)) == {
        "no file {path}; check {path2} and {path}",
        "{name} has {{no}} effect on {names}",
        "{path}: expected a value",
        "{path}: expected {count} values",
        "{path}: {error}",
    }
