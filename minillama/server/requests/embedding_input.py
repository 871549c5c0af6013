"""A checked request for embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass

from minillama.server.http_errors import invalid
from minillama.server.requests.prompt_input import read_prompts
from minillama.tokenizer import Tokenizer


@dataclass(frozen=True)
class EmbeddingRequest:
    """Texts as token ids; normalize: see `LLM.embed`."""

    texts: list[tuple[int, ...]]
    normalize: int
    is_base64: bool


def read_embedding_request(
    body: Mapping[str, object], tokenizer: Tokenizer, normalize: int, ctx_size: int
) -> EmbeddingRequest:
    """Check a request; raises RequestError for wrong values.

    An input is a text, token ids, a mixture, `{"content": [text parts]}`, or a list of these.
    """
    given = body.get("input", body.get("content"))
    if given is None:
        raise invalid('"input" or "content" must be provided')
    if given == []:
        raise invalid('"input" must not be empty')
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise invalid("The format to return the embeddings in. Can be either float or base64")
    wanted = body.get("embd_normalize", normalize)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not -1 <= wanted <= 1000:
        raise invalid(f"embd_normalize must be a whole number from -1 to 1000, but is {wanted!s:.60}")
    inputs = [_plain(each) for each in given] if isinstance(given, list) else _plain(given)
    return EmbeddingRequest(read_prompts(inputs, tokenizer, ctx_size), wanted, form == "base64")


def _plain(value: object) -> object:
    """The text of `{"content": [...]}`; other values as they are."""
    if not isinstance(value, dict) or "content" not in value:
        return value
    parts = value["content"]
    if not isinstance(parts, list):
        raise invalid("'content' of an input must be an array of text parts")
    return "".join(_part_text(part) for part in parts)


def _part_text(part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_audio", "input_video"):
        raise invalid(f"{kind} input is not supported; only text is")
    text = part.get("text") if isinstance(part, dict) and kind == "text" else None
    if not isinstance(text, str):
        raise invalid("unsupported content[].type")
    return text
