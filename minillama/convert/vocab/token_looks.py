"""Types of tokens, and texts that look like those of special tokens."""

from gguf.constants import TokenType

__all__ = ["SPACE", "TokenType", "looks_special", "with_spaces"]

SPACE = "▁"
_SPECIAL = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
_AROUND = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))


def looks_special(text: str) -> bool:
    """True for texts that some folders do not mark as special, although they are."""
    return text in _SPECIAL or any(text.startswith(start) and text.endswith(end) for start, end in _AROUND)


def with_spaces(text: str) -> str:
    """A user-defined token with spaces in place of SentencePiece's character for them."""
    return text.replace(SPACE, " ")
