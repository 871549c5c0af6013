"""Help and errors in the user's language: gettext's domains `minillama-cli` and `minillama-cli-errors`.

The English text is the source: exceptions, logs and results stay English. A text without a translation is shown in
English. An English user loads no catalogue. `minillama.cli.command_messages` collects the texts.
"""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.text_language import ENGLISH, LOCALE, VARIABLE, wanted_language

if TYPE_CHECKING:
    from minillama.cli.translation.error_patterns import Patterns

HELP, ERRORS = "minillama-cli", "minillama-cli-errors"
LOCALE_FOLDER = Path(__file__).parents[1] / "locale"


def help_text(text: str) -> str:
    """A text of the help in the user's language."""
    language = terminal_language(os.environ)
    return text if language == ENGLISH else _catalogue(HELP, language).get(text, text)


def error_text(text: str) -> str:
    """The message of an error or warning in the user's language."""
    language = terminal_language(os.environ)
    return text if language == ENGLISH else _patterns(language).translated(text)


def terminal_language(environment: Mapping[str, str]) -> str:
    """The wanted language; English where the locale names another encoding than UTF-8, which minillama writes."""
    if not environment.get(VARIABLE, "").strip():
        named = next((environment[name] for name in LOCALE if environment.get(name)), "")
        encoding = named.partition("@")[0].partition(".")[2]
        if encoding and encoding.lower().replace("-", "") != "utf8":
            return ENGLISH
    return wanted_language(environment)


@cache
def _patterns(language: str) -> "Patterns":
    from minillama.cli.translation.error_patterns import Patterns

    return Patterns(_catalogue(ERRORS, language))


@cache
def _catalogue(domain: str, language: str) -> dict[str, str]:
    """The translations of a .mo file; none if it is missing or damaged."""
    import struct  # neither of them for English users
    from gettext import GNUTranslations

    try:
        with (LOCALE_FOLDER / language / "LC_MESSAGES" / f"{domain}.mo").open("rb") as file:
            found = GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    except (OSError, ValueError, struct.error):
        return {}
    return {text: translation for text, translation in found.items() if text}
