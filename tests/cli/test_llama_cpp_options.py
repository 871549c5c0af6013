"""Every option and variable of llama.cpp's tools, given to each of our commands."""

import argparse
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minillama.cli import parse_arguments
from minillama.errors import MinillamaError, OptionError, UnsupportedError

TOOLS = {"completion": "run", "cli": "cli", "perplexity": "perplexity", "imatrix": "imatrix", "tokenize": "tokenize",
         "bench": "bench", "quantize": "quantize", "server": "serve"}  # fmt: skip
SHARED = {"completion", "cli", "perplexity", "imatrix", "tokenize", "server"}
WITH_WORDS = ("run", "quantize")  # commands with positional words


class Row(NamedTuple):
    """An option of llama.cpp; `value` is empty for a switch."""

    tools: set[str]
    names: list[str]
    off: list[str]
    variable: str
    value: list[str]
    wrong: list[str]


class Answer(NamedTuple):
    """The parsed arguments or the error, and the warnings."""

    args: argparse.Namespace | None
    error: MinillamaError | None
    warnings: list[str]


@cache
def rows() -> list[Row]:
    text = Path(__file__).with_name("llama_cpp_options.txt").read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            tools, names, off, variable, value, wrong = (*(cell.strip() for cell in line.split("|")), "", "")[:6]
            found.append(Row(SHARED if tools == "all" else set(tools.split()), names.split(), off.split(), variable,
                             value.split(), wrong.split()))  # fmt: skip
    return found


def options_of(tool: str) -> list[Row]:
    return [row for row in rows() if tool in row.tools and "--version" not in row.names]


@pytest.fixture
def ask(caplog: pytest.LogCaptureFixture) -> Iterator[object]:
    caplog.set_level(logging.WARNING, "minillama")

    def answer(*words: str) -> Answer:
        caplog.clear()
        try:
            args, error = parse_arguments(words), None
        except MinillamaError as raised:
            args, error = None, raised
            assert "\n" not in str(raised) and len(str(raised)) < 500
        return Answer(args, error, caplog.messages[:])

    yield answer


@pytest.mark.parametrize("tool", TOOLS)
def test_the_options_of_its_tool(tool: str, ask) -> None:
    """Each is accepted, ignored with a line that names it, or refused with the reason; its arity is exact."""
    command = TOOLS[tool]
    for row in options_of(tool):
        for name in row.names + row.off:
            found = ask(command, name, *row.value)
            if found.error is None:
                assert all(message.startswith(name) for message in found.warnings) and len(found.warnings) <= 1
            else:
                assert isinstance(found.error, UnsupportedError), found.error
                assert str(found.error).startswith((f"{name}: ", f"{name} {' '.join(row.value)}: "))
                continue
            after = ask(command, name, *row.value, "after")
            if command in WITH_WORDS:
                assert after.args is not None and after.args.words == ["after"], name
            else:
                assert str(after.error).startswith("after: "), (name, after)


@pytest.mark.parametrize("tool", TOOLS)
def test_missing_and_wrong_values(tool: str, ask) -> None:
    for row in options_of(tool):
        name = row.names[-1]
        if row.wrong:
            error = ask(TOOLS[tool], name, *row.wrong).error
            assert isinstance(error, OptionError) and str(error).startswith(f"{name} {row.wrong[0]}"), (name, error)
        if row.value:
            short = ask(TOOLS[tool], name, *row.value[:-1])
            once_a_switch = name in ("--color", "--flash-attn", "--numa", "--log-colors") and tool != "bench"
            assert once_a_switch or "expected" in str(short.error), name


@pytest.mark.parametrize("tool", TOOLS)
def test_the_options_of_other_tools(tool: str, ask) -> None:
    """Each is accepted, ignored or refused as well, or the line says where it belongs."""
    command = TOOLS[tool]
    for row in rows():
        for name in [] if tool in row.tools or "--version" in row.names else row.names + row.off:
            error = ask(command, name, *row.value).error
            if isinstance(error, OptionError):
                where = f"{name}: not an option of minillama {command}, but of minillama "
                # The same name has another arity in bench and quantize.
                other = any(name in each.names + each.off and tool in each.tools for each in rows())
                assert str(error).startswith(where) or other, error


@pytest.mark.parametrize("tool", ["completion", "cli", "perplexity", "imatrix", "tokenize", "server"])
def test_the_variables_of_its_tool(tool: str, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable acts as its option does; LLAMA_ARG_NO_X acts as --no-x does, with any value."""
    command = TOOLS[tool]
    for row in options_of(tool):
        settings = [(row.variable, " ".join(row.value) or "on", row.names[-1], row.value)] if row.variable else []
        if row.variable and row.off:
            settings += [(row.variable, "disabled", row.off[-1], [])]
            settings += [(row.variable.replace("LLAMA_ARG_", "LLAMA_ARG_NO_"), text, row.off[-1], []) for text in "10"]
        for variable, text, name, value in settings:
            by_option = ask(command, name, *value)
            monkeypatch.setenv(variable, text)
            by_variable = ask(command)
            monkeypatch.delenv(variable)
            assert by_variable.args == by_option.args, variable
            assert type(by_variable.error) is type(by_option.error), variable
            for one, other in zip(by_variable.warnings, by_option.warnings, strict=True):
                assert one.startswith(variable) and one.partition(": ")[2] == other.partition(": ")[2]
            if by_option.error is not None:
                assert str(by_variable.error).startswith(variable)


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("command", [*TOOLS.values(), "quality", "latency", "worker"])
def test_any_words_are_parsed_or_one_line(command: str, data: st.DataObject, ask) -> None:
    names = st.sampled_from(sorted({name for row in rows() for name in row.names + row.off}))
    texts = st.one_of(st.text(max_size=6), st.text("-=0123456789.ex ,", max_size=8), st.sampled_from(["--", "\udcff"]))
    words = data.draw(st.lists(st.one_of(names, texts), max_size=8))
    assume(not {"--version", "--help", "--usage", "-h"} & {word.replace("_", "-").partition("=")[0] for word in words})
    found = ask(command, *words)
    assert all("\n" not in line and len(line) < 500 for line in found.warnings)


def test_wrong_variables(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in options_of("completion"):
        if row.variable and (row.wrong or row.off):
            text = row.wrong[0] if row.wrong else "perhaps"
            monkeypatch.setenv(row.variable, text)
            error = ask("run").error
            assert isinstance(error, OptionError) and str(error).startswith(f"{row.variable}={text}: "), error
            given = [row.names[0], *row.value]
            assert not isinstance(ask("run", *given).error, OptionError)  # the command line is stronger
            monkeypatch.delenv(row.variable)


def test_variables_without_an_effect(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {row.variable for row in rows() if row.tools == {"server"} and row.variable}
    theirs = sorted(theirs - {"LLAMA_ARG_CONT_BATCHING"})  # of older releases of llama-cli too
    for variable in theirs:
        monkeypatch.setenv(variable, "x")
        assert ask("run").warnings == [f"{variable}: no effect on minillama run"]
        monkeypatch.delenv(variable)
    for variable in theirs[:10]:
        monkeypatch.setenv(variable, "x")
    (line,) = ask("bench").warnings
    assert line.startswith(f"{', '.join(theirs[:8])} and 2 more: no effect on minillama bench")
    for variable in theirs[:10]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZES", "1")  # a typing error
    monkeypatch.setenv("LLAMA_ARG_OFFLINE", "yes")  # llama.cpp ignores it
    monkeypatch.setenv("LLAMA_ARG_SWA_FULL", "0")
    assert ask("run").warnings == [
        "LLAMA_ARG_OFFLINE=yes has no effect: use on or off",
        "LLAMA_ARG_CTX_SIZES: no effect on minillama run",
    ]
