"""Context shift, as in llama.cpp: keep the first tokens, drop half of the others.

The kept tokens are run again, so the text continues as if the dropped ones had never been there.
"""

from collections.abc import Sequence


def shift(tokens: Sequence[int], keep: int) -> list[int]:
    """The first `keep` tokens and the later half of the others."""
    dropped = max(1, (len(tokens) - keep) // 2)
    return [*tokens[:keep], *tokens[keep + dropped :]]


def kept_tokens(wanted: int, prompt_tokens: int, ctx_size: int, *, add_bos: bool) -> int:
    """Tokens at the start that a shift keeps: `--keep`, plus BOS, within limits.

    wanted: -1 for the whole prompt.
    """
    if wanted < 0:
        wanted = prompt_tokens
    elif wanted:
        wanted += add_bos
    return min(wanted, prompt_tokens, ctx_size // 2)
