"""Chat templates: Jinja programs in GGUF files that turn messages into a prompt.

Rendering follows Hugging Face's `apply_chat_template`, in Jinja's immutable sandbox because the program comes with a
file from the internet. A template that fails raises an error with the reason. No other format replaces it silently:
with the wrong format, a model answers badly without a visible reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.tokenizer.vocabulary import read_texts, special_id

if TYPE_CHECKING:
    from minillama.tokenizer.chat.jinja_sandbox import Template

SUGGESTION = "name another with --chat-template (chatml, llama3 ... or a file)"


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the texts of BOS and EOS; errors show its `name`."""

    source: str
    bos_token: str
    eos_token: str
    name: str = field(default="the model's chat template", compare=False)

    def render(
        self,
        messages: Sequence[object],
        *,
        add_generation_prompt: bool = True,
        extra: Mapping[str, object] = {},
    ) -> str:
        """Render messages to a prompt for `Tokenizer.encode`.

        A message has a `role` and a `content`. add_generation_prompt: end with the start of an answer. extra: more
        variables of the template (`tools`, `enable_thinking`). Raises OptionError for an invalid message,
        UnsupportedError if the template is broken, rejects the messages or does too much work.
        """
        from minillama.tokenizer.chat.jinja_sandbox import TemplateError  # imports jinja2, which only chats need

        if not messages:
            raise OptionError("no messages to render; give at least one user message")
        variables = {
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            **extra,
            "messages": [_checked(message, place) for place, message in enumerate(messages)],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return _compiled(self.source).render(variables)
        except TemplateError as error:
            raise self._refusal(str(error)) from error

    def _refusal(self, reason: str) -> UnsupportedError:
        one_line = " ".join(reason.split())  # the template may raise several lines
        return UnsupportedError(f"{self.name} {one_line}; {SUGGESTION}")


def load_chat_template(metadata: Mapping[str, object]) -> ChatTemplate | None:
    """The template of a file, or None; FormatError if it is not a text."""
    source = metadata.get("tokenizer.chat_template")
    if source is None:
        return None
    if not isinstance(source, str):
        raise FormatError("tokenizer.chat_template is not a text; convert the model again")
    tokens = read_texts(metadata, "tokenizer.ggml.tokens") if "tokenizer.ggml.tokens" in metadata else ()
    model = metadata.get("tokenizer.ggml.model")
    bos, eos = (1, 2) if isinstance(model, str) and model == "llama" else (None, None)
    return ChatTemplate(source, _token_text(metadata, tokens, "bos", bos), _token_text(metadata, tokens, "eos", eos))


def _token_text(metadata: Mapping[str, object], tokens: Sequence[str], role: str, default: int | None) -> str:
    index = special_id(metadata, role, len(tokens), default)
    return "" if index is None else tokens[index]


def _checked(message: object, place: int) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise OptionError(f"message {place} is {message!r}; a message is like {{'role': 'user', 'content': 'Hello'}}")
    if not isinstance(message.get("role"), str) or not message["role"]:
        raise OptionError(f"message {place} has the role {message.get('role')!r}; give it one like 'user'")
    content = message.get("content")
    if not isinstance(content, str | list) and not (content is None and "tool_calls" in message):
        raise OptionError(f"message {place} has the content {content!r}; give it a text")
    return {"content": None, **message}


@lru_cache(maxsize=16)
def _compiled(source: str) -> "Template":
    from minillama.tokenizer.chat.jinja_sandbox import compile_template

    return compile_template(source)
