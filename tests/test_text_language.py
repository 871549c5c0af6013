"""The language of a name, of MINILLAMA_LANG and of the locale."""

import pytest

from minillama.errors import OptionError
from minillama.text_language import check_language, language_named, wanted_language


@pytest.mark.parametrize("name", ["zh", "zh-CN", "zh_CN.UTF-8", "ZH", "zh_Hans_CN", " zh "])
def test_names_of_chinese(name: str) -> None:
    assert language_named(name) == "zh_CN" == check_language("--lang", name)


@pytest.mark.parametrize("name", ["en", "en_GB.UTF-8", "C", "C.UTF-8", "POSIX"])
def test_names_of_english(name: str) -> None:
    assert language_named(name) == "en"


@pytest.mark.parametrize("name", ["fr", "", "zhuang", "english"])
def test_other_names(name: str) -> None:
    assert language_named(name) is None
    with pytest.raises(OptionError, match=r"--lang is .*; expected en .* or zh"):
        check_language("--lang", name)


def test_the_variable_comes_before_the_locale() -> None:
    assert wanted_language({}) == "en"
    assert wanted_language({"LANG": "zh_CN.UTF-8"}) == "zh_CN"
    assert wanted_language({"LANG": "zh_CN.UTF-8", "LC_ALL": "de_DE.UTF-8"}) == "en"
    assert wanted_language({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}) == "zh_CN"
    assert wanted_language({"LANG": "zh_CN.UTF-8", "MINILLAMA_LANG": "en"}) == "en"
    assert wanted_language({"LANG": "C", "MINILLAMA_LANG": "zh"}) == "zh_CN"
    assert wanted_language({"LANG": "zh_CN", "MINILLAMA_LANG": "unknown"}) == "en"
