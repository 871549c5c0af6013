"""Fields of a request with lists: biases, stop strings, samplers, sequence breakers."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from minillama.errors import OptionError
from minillama.sampling.sampler_order import parse_order
from minillama.server.http_errors import invalid
from minillama.server.requests.fields import FLOAT_MAX, wrong_type
from minillama.server.requests.prompt_input import text_of
from minillama.tokenizer import Tokenizer

logger = logging.getLogger("minillama")

MOST_BIASES, MOST_STOPS, MOST_STOP_CHARACTERS, MOST_BREAKERS = 10_000, 256, 10_000, 256


def read_biases(value: object, tokenizer: Tokenizer) -> tuple[tuple[int, float], ...]:
    """Pairs of token id and bias; entries of another form are skipped, as in llama-server.

    `[[id or text, number or false], ...]` or `{"id or text": number or false}`; a text biases each of its tokens.
    """
    pairs = value.items() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if len(pairs) > MOST_BIASES:
        raise invalid(f"Field 'logit_bias': {len(pairs)} entries; give at most {MOST_BIASES}")
    found: list[tuple[int, float]] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        bias = _bias(pair[1])
        if bias is not None:
            found += ((token, bias) for token in _tokens(pair[0], tokenizer))
    return tuple(found)


def read_stop(value: object) -> tuple[str, ...]:
    """Stop strings without empty ones; raises RequestError for a list with anything else."""
    words = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    for word in words:
        if not isinstance(word, str):
            raise wrong_type("stop", "string", word)
    if len(words) > MOST_STOPS or sum(map(len, words)) > MOST_STOP_CHARACTERS:
        raise invalid(f"Field 'stop': give at most {MOST_STOPS} strings with {MOST_STOP_CHARACTERS} characters in all")
    return tuple(text_of(word) for word in words if word)


def read_samplers(value: object) -> str | None:
    """An order of samplers as `Sampling` takes it; unknown names are skipped with a warning."""
    if isinstance(value, str):
        return "".join(letter for letter in value if _is_known(letter, "a letter of samplers"))
    if isinstance(value, list):
        names = [name for name in value if isinstance(name, str) and _is_known(f"{name};", "a sampler")]
        return "".join(f"{name};" for name in names)
    return None


def read_breakers(value: object, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that hold one of DRY's sequence breakers; raises RequestError for no breakers."""
    words = value if isinstance(value, list) else []
    if not words or len(words) > MOST_BREAKERS or not all(isinstance(word, str) for word in words):
        reason = f"dry_sequence_breakers must be a non-empty array of at most {MOST_BREAKERS} strings"
        raise invalid(f"Field 'dry_sequence_breakers': Error: {reason}")
    marks = [text_of(word).encode() for word in words if word]
    if not marks:
        return ()
    pattern = re.compile(b"|".join(map(re.escape, marks)))
    return tuple(token for token in range(tokenizer.size) if pattern.search(tokenizer.piece(token)))


def read_response_fields(value: object) -> tuple[str, ...]:
    """Paths of the wanted keys of an answer, such as `timings/predicted_n`."""
    return tuple(path for path in value if isinstance(path, str)) if isinstance(value, list) else ()


def select_fields(answer: Mapping[str, object], paths: Sequence[str]) -> Mapping[str, object]:
    """The wanted keys of an answer, under their whole paths; all of it without paths."""
    if not paths:
        return answer
    return {path: value for path in paths for value in _values_at(answer, path)}


def _values_at(answer: object, path: str) -> Iterator[object]:
    for key in path.split("/"):
        if not isinstance(answer, Mapping) or key not in answer:
            return
        answer = answer[key]
    yield answer


def _bias(value: object) -> float | None:
    if value is False:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(max(value, -FLOAT_MAX), FLOAT_MAX))


def _tokens(name: object, tokenizer: Tokenizer) -> Sequence[int]:
    if isinstance(name, str) and not re.fullmatch(r"\s*[+-]?[0-9]{1,18}", name, re.ASCII):
        return tokenizer.encode(text_of(name), add_special=False, parse_special=False)
    if isinstance(name, bool) or not isinstance(name, int | str):
        return ()
    token = int(name)
    return (token,) if 0 <= token < tokenizer.size else ()


def _is_known(order: str, what: str) -> bool:
    try:
        parse_order(order)
    except OptionError:
        logger.warning("%.40r is not %s; it is skipped", order.rstrip(";"), what)
        return False
    return True
