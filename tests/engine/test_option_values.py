"""Options of a wrong type: one line that names the option and the value."""

import re
from pathlib import Path

import numpy as np
import pytest

from minillama.errors import OptionError
from minillama.option_values import as_int, check_flag, check_int, check_text
from minillama.tokenizer import BUILTIN_TEMPLATES, ChatTemplate

ODD = [b"x", "text", 1.0, None, [1], {"a": 1}, ..., np.ones(2), np.array([True]), 1 + 2j, True, np.True_]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_no_whole_number(value: object) -> None:
    assert as_int(value) is None
    with pytest.raises(OptionError, match=r"^ctx_size is .*; expected a whole number$") as caught:
        check_int("ctx_size", value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), np.array(7)], ids=repr)
def test_whole_number(value: object) -> None:
    assert check_int("n", value) == 7 and type(as_int(value)) is int


@pytest.mark.parametrize("value", [value for value in ODD if not isinstance(value, bool)], ids=repr)
def test_no_flag(value: object) -> None:
    check_flag("lookup", False)
    with pytest.raises(OptionError, match=r"^lookup is .*; expected True or False$"):
        check_flag("lookup", value)


@pytest.mark.parametrize("value", [value for value in ODD if not isinstance(value, str | None)], ids=repr)
def test_no_text(value: object) -> None:
    check_text("hf_repo", "user/model")
    check_text("hf_repo", None)
    with pytest.raises(OptionError, match=r"^hf_repo is .*; expected a text$"):
        check_text("hf_repo", value)


def test_every_option_of_load_is_checked() -> None:
    path = Path(__file__).resolve().parents[2] / "minillama" / "engine" / "load_options.py"
    declared, checks = path.read_text(encoding="utf-8").split("def __post_init__")
    fields = re.findall(r"^    (\w+): (?:int|bool|str)\b", declared, re.MULTILINE)
    checked = declared.split("class LoadOptions")[0] + checks.split("def from_args")[0]
    types = {"cache_type_k", "cache_type_v"}  # one of a few names, as split_mode
    elsewhere = {"split_mode", *types, *(f"{name}_draft" for name in types)}
    assert {name for name in fields if f'"{name}"' not in checked} == elsewhere


@pytest.mark.parametrize("messages", ["Hello", b"Hello", {"role": "user"}, 5, None, np.ones(2), ...], ids=repr)
def test_messages_are_a_list(messages: object) -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES["chatml"], "", "")
    kind = type(messages).__name__
    with pytest.raises(OptionError, match=rf"^messages is of type {kind}; give a list of messages like \{{'role'"):
        template.render(messages)
