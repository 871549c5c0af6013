"""Chat templates: Jinja programs in GGUF files that turn messages into a prompt.

Rendering follows Hugging Face's `apply_chat_template`, in a child process (`template_process.py`) because the program
comes with a file from the internet. A template that fails raises an error with the reason. No other format replaces it
silently: with the wrong format, a model answers badly without a visible reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from minillama.errors import FormatError, OptionError, UnsupportedError, quoted
from minillama.printable_text import printable
from minillama.tokenizer.chat.answer_parts import Splitter
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts, prompt_thoughts
from minillama.tokenizer.chat.reasoning_format import answer_splitter, end_thoughts, thought_tags
from minillama.tokenizer.chat.template_process import SHARED, TemplateRefused
from minillama.tokenizer.chat.tool_messages import EXAMPLE_CALL, EXAMPLE_KEY, adapt_messages
from minillama.tokenizer.vocabulary import read_texts, special_id

if TYPE_CHECKING:
    from minillama.tokenizer.chat.tool_calls.call_format import CallFormat

MAX_SOURCE = 500_000  # characters
MAX_REASON = 300
_NEEDLE = "minillama-text-part"
_INSTEAD = {"tool_calls", "reasoning_content", "thinking"}  # what an answer may have instead of a content
SUGGESTION = "name another with --chat-template (chatml, llama3 ... or a file)"


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the texts of BOS and EOS; errors show its `name`.

    tool_source: the template for conversations with tools, if the file has another one for them.
    """

    source: str
    bos_token: str
    eos_token: str
    name: str = field(default="the model's chat template", compare=False)
    tool_source: str | None = None

    def render(
        self,
        messages: Sequence[object],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[object] | None = None,
        extra: Mapping[str, object] = {},
    ) -> str:
        """Render messages to a prompt for `Tokenizer.encode`.

        messages: as in OpenAI's API, with `role`, `content` and more. The template sees them unchanged; only text parts
        become one text if the template takes none. add_generation_prompt: end with the start of an answer. tools:
        functions that the model may call, as in OpenAI's API. extra: more variables of the template; with
        `enable_thinking` false, the prompt also ends thoughts that the template began. Raises OptionError for an
        invalid message, UnsupportedError if the template is broken, rejects the messages or takes too much time, memory
        or text.
        """
        if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
            raise OptionError(
                f"messages is of type {type(messages).__name__}; give a list of messages like "
                "{'role': 'user', 'content': 'Hello'}"
            )
        if not messages:
            raise OptionError("no messages to render; give at least one user message")
        if not isinstance(tools, list | tuple | None):
            raise OptionError(f"tools is {quoted(tools)}; give a list of functions")
        checked = [_checked(message, place) for place, message in enumerate(messages)]
        if any(isinstance(message.get("content"), list) for message in checked) and not self._takes_parts:
            checked = [_joined(message, place) for place, message in enumerate(checked)]
        source = self.tool_source if tools and self.tool_source is not None else self.source
        text = self._render(source, checked, add_generation_prompt, {**extra, "tools": list(tools) if tools else None})
        return end_thoughts(self._all_sources, text) if extra.get("enable_thinking") is False else text

    def adapt(self, messages: Sequence[object]) -> list[object]:
        """Messages as OpenAI's clients write them, in the form that the template takes.

        A developer is a system, unless the format has developers. A message with tool calls has a text, and their
        arguments, which are JSON text, are objects if the template writes these.
        """
        return adapt_messages(messages, developers="<|channel|>" in self.source, as_objects=lambda: self._takes_objects)

    @property
    def call_format(self) -> "CallFormat":
        """The form of tool calls in answers."""
        from minillama.tokenizer.chat.tool_calls.call_formats import call_format  # for requests with tools

        return call_format(self._all_sources)

    def thoughts(self, prompt: str, *, may_think: bool = True) -> PromptThoughts | None:
        """The thoughts of an answer to a rendered prompt; see `prompt_thoughts`."""
        return prompt_thoughts(thought_tags(self._all_sources), prompt, may_think=may_think)

    def answer_splitter(self, prompt: str, reasoning_format: str, calls: "CallFormat | None" = None) -> Splitter:
        """The splitter of an answer to a rendered prompt into text and thoughts.

        reasoning_format: `auto`, `deepseek`, `deepseek-legacy` or `none`; raises OptionError for another one. calls:
        the form of tool calls, where the request has tools; they stay in the text.
        """
        return answer_splitter(self._all_sources, prompt, reasoning_format, calls)

    @property
    def _all_sources(self) -> str:
        return self.source + (self.tool_source or "")

    def _render(
        self, source: str, messages: list[dict[str, object]], generation: bool, extra: Mapping[str, object]
    ) -> str:
        variables = {
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "documents": None,  # transformers defines this one and `tools` in every rendering
            **extra,
            "messages": messages,
            "add_generation_prompt": generation,
        }
        if len(source) > MAX_SOURCE:
            raise self._refusal(f"has {len(source)} characters, more than {MAX_SOURCE}")
        try:
            return SHARED.render(source, variables)
        except TemplateRefused as error:
            raise self._refusal(str(error)) from None

    @cached_property
    def _takes_parts(self) -> bool:
        """True if the template writes the text of a part, and not the part itself."""
        message: dict[str, object] = {"role": "user", "content": [{"type": "text", "text": _NEEDLE}]}
        try:
            text = self._render(self.source, [message], True, {"tools": None})
        except UnsupportedError:
            return False
        return _NEEDLE in text and f"'{_NEEDLE}'" not in text and f'"{_NEEDLE}"' not in text

    @cached_property
    def _takes_objects(self) -> bool:
        """True if the template writes the arguments of a call as JSON itself."""
        messages: list[dict[str, object]] = [{"role": "user", "content": _NEEDLE}, EXAMPLE_CALL]
        source = self.tool_source if self.tool_source is not None else self.source
        try:
            text = self._render(source, messages, True, {"tools": None})
        except UnsupportedError:
            return False
        return EXAMPLE_KEY in text.replace(f"'{EXAMPLE_KEY}'", "")  # in quotes of Python, it wrote the object itself

    def _refusal(self, reason: str) -> UnsupportedError:
        one_line = printable(" ".join(reason.split()))  # the template may raise any text
        return UnsupportedError(f"{self.name} {one_line[:MAX_REASON]}; {SUGGESTION}")


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
    with_tools = metadata.get("tokenizer.chat_template.tool_use")
    return ChatTemplate(
        source,
        _token_text(metadata, tokens, "bos", bos),
        _token_text(metadata, tokens, "eos", eos),
        tool_source=with_tools if isinstance(with_tools, str) else None,
    )


def _token_text(metadata: Mapping[str, object], tokens: Sequence[str], role: str, default: int | None) -> str:
    index = special_id(metadata, role, len(tokens), default)
    return "" if index is None else tokens[index]


def _checked(message: object, place: int) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise OptionError(
            f"message {place} is {quoted(message)}; a message is like {{'role': 'user', 'content': 'Hello'}}"
        )
    if not isinstance(message.get("role"), str) or not message["role"]:
        raise OptionError(f"message {place} has the role {quoted(message.get('role'))}; give it one like 'user'")
    content = message.get("content")
    if not isinstance(content, str | list) and not (content is None and _INSTEAD & message.keys()):
        raise OptionError(f"message {place} has the content {quoted(content)}; give it a text")
    return dict(message)


def _joined(message: dict[str, object], place: int) -> dict[str, object]:
    """The message with its text parts joined by newlines, as in llama.cpp."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": "\n".join(_text(part, place) for part in content)}


def _text(part: object, place: int) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise OptionError(f"message {place} has the part {quoted(part)}; this chat template takes texts only")
    return text
