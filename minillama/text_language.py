"""The language that a user wants: from a name, MINILLAMA_LANG or the locale."""

from collections.abc import Mapping

from minillama.errors import OptionError, quoted

ENGLISH, CHINESE = "en", "zh_CN"
LANGUAGES = (ENGLISH, CHINESE)
VARIABLE = "MINILLAMA_LANG"
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is not empty counts


def language_named(name: str) -> str | None:
    """The language of a name such as `zh`, `zh-CN` or `en_GB.UTF-8`, or None."""
    start = name.strip().partition(".")[0].replace("-", "_").partition("_")[0].lower()
    return {"en": ENGLISH, "c": ENGLISH, "posix": ENGLISH, "zh": CHINESE}.get(start)


def check_language(option: str, name: str) -> str:
    """The language of an option's value; OptionError if it is none of ours."""
    if (language := language_named(name)) is None:
        raise OptionError(f"{option} is {quoted(name)}; expected en (English) or zh (Chinese)")
    return language


def wanted_language(environment: Mapping[str, str]) -> str:
    """The language of MINILLAMA_LANG or the locale; English if it is none of ours."""
    if (name := environment.get(VARIABLE, "")).strip():
        return language_named(name) or ENGLISH
    named = next((environment[name] for name in LOCALE if environment.get(name)), "")
    return language_named(named) or ENGLISH
