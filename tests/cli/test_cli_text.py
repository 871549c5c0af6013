"""Prompts on their way in."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.cli.arguments.prompt_text import process_escapes, read_file, read_prompt, read_system_prompt
from minillama.errors import OptionError, ResourceError


def slow_escapes(text: str) -> str:
    """llama.cpp's loop over bytes, read and written one by one."""
    source, target, at = text.encode(), bytearray(), 0
    plain = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"'": b"'", b'"': b'"', b"\\": b"\\"}
    digits = set(b"0123456789abcdefABCDEF")
    while at < len(source):
        if source[at : at + 1] != b"\\" or at + 1 == len(source):
            target.append(source[at])
            at += 1
        elif source[at + 1 : at + 2] in plain:
            target += plain[source[at + 1 : at + 2]]
            at += 2
        elif source[at + 1 : at + 2] == b"x" and len(source) > at + 3 and set(source[at + 2 : at + 4]) <= digits:
            target.append(int(source[at + 2 : at + 4], 16))
            at += 4
        else:
            target += source[at : at + 2]
            at += 2
    return target.decode(errors="replace")


@given(st.lists(st.sampled_from(["\\", "n", "t", "x", "4", "e4", "\\xe4\\xbd\\xa0", '"', "é", "\n", "0"])).map("".join))
def test_escapes_as_llama_cpp_reads_them(text: str) -> None:
    assert process_escapes(text) == slow_escapes(text)


def test_escapes() -> None:
    assert process_escapes(r"a\nb\tc\\n\"\x41\q\x4") == 'a\nb\tc\\n"A\\q\\x4'


def arguments(**given_values: object) -> argparse.Namespace:
    names = ("prompt", "file", "binary_file", "system_prompt", "system_prompt_file")
    empty = {**dict.fromkeys(names), "escape": True}
    return argparse.Namespace(**{**empty, **given_values})


def test_prompt_sources(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"one\\ntwo\r\n\n")
    assert read_prompt(arguments()) is None
    assert read_prompt(arguments(prompt="")) == ""
    assert read_prompt(arguments(prompt=r"a\nb")) == "a\nb"
    assert read_prompt(arguments(prompt=r"a\nb", escape=False)) == r"a\nb"
    assert read_prompt(arguments(), ["a", "b"]) == "a b"
    assert read_prompt(arguments(file=str(file))) == "one\ntwo\r\n"  # the last newline goes, line ends stay
    assert read_prompt(arguments(binary_file=str(file))) == "one\ntwo\r\n\n"
    with pytest.raises(OptionError, match="-p and words"):
        read_prompt(arguments(prompt="a"), ["b"])
    assert read_file(str(file), final_newline=True) == "one\\ntwo\r\n\n"
    with pytest.raises(ResourceError, match=r"nothing\.txt: No such file"):
        read_prompt(arguments(file=str(tmp_path / "nothing.txt")))


def test_system_prompt(tmp_path: Path) -> None:
    file = tmp_path / "system.txt"
    file.write_text(r"be\nkind" + "\n")
    assert read_system_prompt(arguments()) is None
    assert read_system_prompt(arguments(system_prompt=r"be\nkind")) == "be\nkind"
    assert read_system_prompt(arguments(system_prompt_file=str(file))) == r"be\nkind"
