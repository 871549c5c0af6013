"""Prompts of a request: texts, token ids, mixtures of both, and lists of these."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

from minillama.engine.batching.batch_errors import ContextSizeError
from minillama.engine.loading.memory_budget import give_back
from minillama.server.http_errors import invalid
from minillama.tokenizer import Tokenizer

MOST_PROMPTS = 1024
LONG_TEXT = 1 << 20  # characters; encoding takes about 200 bytes of memory for each
_one_long_text = threading.Lock()
_WRONG = (
    '"prompt" elements must be a string, a list of tokens, a JSON object containing a prompt string, '
    "or a list of mixed strings & tokens."
)
_NO_MEDIA = "Multimodal data provided, but model does not support multimodal requests."


def read_prompts(prompt: object, tokenizer: Tokenizer, ctx_size: int) -> list[tuple[int, ...]]:
    """Token ids of each prompt; raises RequestError for another value and for invalid tokens.

    Raises ContextSizeError for a text that must have more than `ctx_size` tokens.
    A text, a list of ids, a list that mixes both, `{"prompt_string": ...}`, or a list of several of these.
    """
    if isinstance(prompt, list) and not _is_one_prompt(prompt):
        if not prompt:
            raise invalid('"prompt" must not be empty')
        if len(prompt) > MOST_PROMPTS:
            raise invalid(f'"prompt" has {len(prompt)} prompts; send at most {MOST_PROMPTS} in one request')
        return [read_prompt(each, tokenizer, ctx_size) for each in prompt]
    return [read_prompt(prompt, tokenizer, ctx_size)]


def read_prompt(prompt: object, tokenizer: Tokenizer, ctx_size: int) -> tuple[int, ...]:
    """Token ids of one prompt."""
    if isinstance(prompt, dict) and "prompt_string" in prompt:
        if "multimodal_data" in prompt:
            raise invalid(_NO_MEDIA)
        prompt = prompt["prompt_string"]
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and _is_one_prompt(prompt)):
        raise invalid(_WRONG)
    check_length(prompt, tokenizer, ctx_size)
    ids = encode_mixed(prompt, tokenizer, add_special=True, parse_special=True)
    if not ids and tokenizer.bos is None:
        raise invalid("the prompt is empty and the model has no BOS token to start from; give a prompt")
    return ids or (int(tokenizer.bos or 0),)


def encode_mixed(
    content: object, tokenizer: Tokenizer, *, add_special: bool, parse_special: bool = True
) -> tuple[int, ...]:
    """Token ids of a text, or of a list of texts and ids.

    BOS comes only before a text at the start.
    """
    parts = content if isinstance(content, list) else [content]
    encode = partial(tokenizer.encode, parse_special=parse_special)
    ids: list[int] = []
    for place, part in enumerate(parts):
        if isinstance(part, str):
            ids += in_turn(partial(encode, add_special=add_special and not place), text_of(part))
        else:
            ids.append(checked_token(part, tokenizer.size))
    return tuple(ids)


def check_length(content: object, tokenizer: Tokenizer, ctx_size: int) -> None:
    """Refuse texts that cannot fit before the work of encoding them."""
    texts = (part for part in (content if isinstance(content, list) else [content]) if isinstance(part, str))
    fewest = sum(map(tokenizer.fewest_tokens, texts))
    if fewest > ctx_size:
        raise ContextSizeError(fewest, ctx_size, is_bound=True)


def in_turn(encode: Callable[[str], list[int]], text: str) -> list[int]:
    """Token ids of a text.

    Long texts take turns, and give their memory back: each thread's share of the heap would keep it.
    """
    if len(text) < LONG_TEXT:
        return encode(text)
    with _one_long_text:
        ids = encode(text)
        give_back()
    return ids


def checked_token(value: object, size: int) -> int:
    """A token id; raises RequestError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(_WRONG)
    if not 0 <= value < size:
        raise invalid("Prompt contains invalid tokens")
    return int(value)


def text_of(text: str) -> str:
    """A text without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def read_tokens(value: object, size: int) -> Sequence[int]:
    """A list of token ids of `/detokenize`; raises RequestError for anything else."""
    if not isinstance(value, list):
        raise invalid('"tokens" must be a list of token ids')
    return [checked_token(each, size) for each in value]


def _is_one_prompt(values: list[object]) -> bool:
    """Whether a list is one prompt: ids, or ids and texts.

    A list of texts is several prompts.
    """
    has_id = any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return has_id and all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values)
