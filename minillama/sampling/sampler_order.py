"""Order of the samplers: llama.cpp's names, aliases and letters for the stages of the chain."""

from enum import Enum

from minillama.errors import OptionError


class Sampler(Enum):
    """A stage of the chain: its `--samplers` name, `--sampler-seq` letter and printed name."""

    PENALTIES = ("penalties", "e", "penalties")
    DRY = ("dry", "d", "dry")
    TOP_N_SIGMA = ("top_n_sigma", "s", "top-n-sigma")
    TOP_K = ("top_k", "k", "top-k")
    TYP_P = ("typ_p", "y", "typical")
    TOP_P = ("top_p", "p", "top-p")
    MIN_P = ("min_p", "m", "min-p")
    XTC = ("xtc", "x", "xtc")
    TEMPERATURE = ("temperature", "t", "temp-ext")

    def __init__(self, option: str, letter: str, printed: str) -> None:
        self.option = option
        self.letter = letter
        self.printed = printed


MOST_STAGES = 64  # of a chain: each one is compiled
DEFAULT_ORDER = "edskypmxt"

_LETTERS = {sampler.letter: sampler for sampler in Sampler}
_NAMES = {
    spelling: sampler
    for sampler in Sampler
    for spelling in (sampler.option, sampler.option.replace("_", "-"), sampler.option.replace("_", ""))
} | {"nucleus": Sampler.TOP_P, "temp": Sampler.TEMPERATURE, "typ": Sampler.TYP_P, "typical": Sampler.TYP_P}
_UNSUPPORTED = {"a": "adaptive_p", "i": "infill"}  # samplers of llama.cpp without a stage here


def parse_order(text: str) -> tuple[Sampler, ...]:
    """Parse an order of samplers: names separated by `;`, one name, or letters.

    Examples: `top_k;top-p;temp`, `temperature`, `kpt`. Case does not matter. An empty text is an empty chain.
    Raises OptionError for an unknown name or letter (llama.cpp warns and skips it).
    """
    if text.count(";") >= MOST_STAGES or (";" not in text and len(text) > MOST_STAGES):
        raise OptionError(f"samplers names more than {MOST_STAGES} stages: {text:.40}")
    names = [name.strip().lower() for name in text.split(";") if name.strip()]
    if len(names) == 1 and names[0] not in _NAMES and ";" not in text and names[0] not in _UNSUPPORTED.values():
        return tuple(_sampler_of_letter(letter) for letter in names[0])
    return tuple(_sampler_of_name(name) for name in names)


def sequence_to_names(letters: str) -> str:
    """Names for the letters of `--sampler-seq`; `parse_order` would read the letters `temp` as a name."""
    return ";".join(_sampler_of_letter(letter).option for letter in letters.strip().lower()) + ";"


def _sampler_of_letter(letter: str) -> Sampler:
    if letter in _LETTERS:
        return _LETTERS[letter]
    reason = f"{_UNSUPPORTED[letter]} is not supported" if letter in _UNSUPPORTED else "no such sampler"
    known = ", ".join(f"{letter} {sampler.option}" for letter, sampler in _LETTERS.items())
    raise OptionError(f"samplers: letter {letter!r}: {reason}; use {known}")


def _sampler_of_name(name: str) -> Sampler:
    if name in _NAMES:
        return _NAMES[name]
    reason = "not supported" if name.replace("-", "_") in _UNSUPPORTED.values() else "no such sampler"
    raise OptionError(f"samplers: {name!r}: {reason}; use {', '.join(sampler.option for sampler in Sampler)}")
