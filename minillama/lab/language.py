"""The labs' texts in the learner's language: gettext's domain `minillama`.

MINILLAMA_LANG names the language, else the locale does; the first code cell of a translated notebook sets the variable.
A text without a translation stays in English. `minillama.lab.translation` keeps the catalogues.
"""

import gettext
import os
import struct
from functools import cache
from pathlib import Path

from minillama.text_language import LANGUAGES, wanted_language

DOMAIN = "minillama"
LOCALE_FOLDER = Path(__file__).parent / "locale"


def translate(text: str, /, **values: object) -> str:
    """A text in the learner's language, with `values` in the places of its {names}."""
    found = _catalogue(wanted_language(os.environ)).gettext(text) if text else text
    return found.format(**values) if values else found


def message(text: str) -> str:
    """The text itself, which goes into the catalogue: `translate` gets it later."""
    return text


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    try:
        return gettext.translation(DOMAIN, LOCALE_FOLDER, [language], fallback=True)
    except (OSError, ValueError, struct.error):  # a damaged file: English
        return gettext.NullTranslations()


def records_folder(folder: Path) -> Path:
    """The folder of records; a translated notebook has that of the English one."""
    return folder.parents[1] / folder.name if folder.parent.name in LANGUAGES else folder
