"""The budget of thoughts: reasoning_budget_tokens, with llama-server's aliases, and reasoning_budget_message."""

from collections.abc import Mapping

from minillama.engine.grammar.thinking_budget import ThinkingBudget, thinking_budget
from minillama.server.http_errors import invalid
from minillama.server.requests.fields import INT_MAX, Field, Kind, read_fields, wrong_type
from minillama.server.settings import ChatSettings
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts, prompt_thoughts
from minillama.tokenizer.chat.tag_splitter import Tags

TOKENS = Field(
    ("reasoning_budget_tokens", "thinking_budget_tokens", "reasoning_budget"), Kind.INT, -1, INT_MAX, is_hard=True
)


def read_thinking(
    body: Mapping[str, object], settings: ChatSettings, thoughts: PromptThoughts | None, *, is_watched: bool
) -> ThinkingBudget | None:
    """The budget of a request, else that of the command.

    None without a limit, unless thoughts are watched.
    thoughts: of a chat. A completion names its own tags: reasoning_budget_start_tag and reasoning_budget_end_tags.
    Raises RequestError for wrong values.
    """
    tokens = int(read_fields(body, (TOKENS,)).get(TOKENS.name, -1))
    if thoughts is None:
        thoughts = _own_tags(body)
    else:
        tokens = settings.reasoning_budget if tokens == -1 else tokens
    if thoughts is None or (tokens == -1 and not is_watched):
        return None
    message = _text(body, "reasoning_budget_message")
    return thinking_budget(thoughts, tokens, settings.reasoning_budget_message if message is None else message)


def _own_tags(body: Mapping[str, object]) -> PromptThoughts | None:
    start, end = _text(body, "reasoning_budget_start_tag"), body.get("reasoning_budget_end_tags")
    if end is None:
        end = body.get("reasoning_budget_end_tag")
    end = end[0] if isinstance(end, list) and end else end
    if not start or not end:
        return None
    if not isinstance(end, str):
        raise invalid("Field 'reasoning_budget_end_tags': type must be array of strings")
    return prompt_thoughts(Tags(start, end), _text(body, "generation_prompt") or "")


def _text(body: Mapping[str, object], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "string", value)
    return value
