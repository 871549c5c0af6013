"""Whether a draft model has the vocabulary of its model, as llama.cpp compares them."""

from collections.abc import Iterator

from minillama.errors import OptionError, quoted
from minillama.gguf import GGUF
from minillama.tokenizer import Tokenizer

FIRST_COMPARED = 5  # the tokens before are special ones, whose texts may differ
MOST_DIFFERENCE = 128  # tokens that one vocabulary may have more than the other


def check_draft_vocabulary(target: GGUF, tokenizer: Tokenizer, draft: GGUF, draft_tokenizer: Tokenizer) -> None:
    """Raise OptionError, with both files, where a guess would mean another token.

    The rules of llama.cpp's common/speculative.cpp.
    """
    kinds = tuple(file.metadata.get("tokenizer.ggml.model") for file in (draft, target))
    for name, mine, other in (("tokenizer.ggml.model", *kinds), *_differences(draft_tokenizer, tokenizer)):
        if mine != other:
            raise OptionError(
                f"the draft model {draft.path.name} does not fit {target.path.name}: {name} is {quoted(mine)} in place "
                f"of {quoted(other)}; choose one with the same vocabulary"
            )


def _differences(mine: Tokenizer, other: Tokenizer) -> Iterator[tuple[str, object, object]]:
    """Names and values that must be equal, those of the draft model first."""
    yield "the BOS token", *(each.bos if each.add_bos else None for each in (mine, other))
    yield "the EOS token", *(each.eos if each.add_eos else None for each in (mine, other))
    if abs(mine.size - other.size) > MOST_DIFFERENCE:
        yield "the number of tokens", mine.size, other.size
    shared = min(mine.size, other.size)
    if mine.tokens[FIRST_COMPARED:shared] != other.tokens[FIRST_COMPARED:shared]:
        for token in range(FIRST_COMPARED, shared):
            yield f"token {token}", mine.tokens[token], other.tokens[token]
