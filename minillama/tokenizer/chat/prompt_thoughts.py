"""Thoughts in the answer to one prompt: their tags, and if it has begun them."""

from dataclasses import dataclass

from minillama.tokenizer.chat.tag_splitter import Tags


@dataclass(frozen=True)
class PromptThoughts:
    """The thoughts that an answer may begin with.

    is_open: the prompt ends with the first tag, and perhaps with the text `begun` after it.
    """

    tags: Tags
    is_open: bool
    begun: str = ""


def prompt_thoughts(tags: Tags | None, prompt: str, *, may_think: bool = True) -> PromptThoughts | None:
    """The thoughts of the answer to a rendered prompt; None where there are none.

    tags: of the chat template. may_think: False where the request turns thoughts off.
    """
    if tags is None:
        return None
    text = prompt.rstrip()
    if text.endswith(tags.start):
        return PromptThoughts(tags, is_open=True, begun=prompt[len(text) :])
    if not may_think or text.endswith(tags.end):
        return None
    return PromptThoughts(tags, is_open=False)
