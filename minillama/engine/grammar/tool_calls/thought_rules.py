"""Rules of the thoughts before an answer."""

from collections.abc import Sequence

from minillama.engine.grammar.tool_calls.call_rules import CallRules
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts


def write_thoughts(rules: CallRules, thoughts: PromptThoughts | None, never: Sequence[str] = ()) -> str:
    """The expression of thoughts and their end; optional where the prompt has begun none.

    never: texts that are not in thoughts, because they end them too.
    """
    if thoughts is None:
        return "space"
    tags = thoughts.tags
    inside = rules.until("thought", (tags.end,), (*never, *tags.never))
    rest = f"{inside} {rules.exact(tags.next)} space"
    return rest if thoughts.is_open else f"space ({rules.exact(tags.start)} {rest})?"


def wrap_answer(rules: CallRules, thoughts: PromptThoughts, answer: str) -> None:
    """Write the root: thoughts, then an answer, whose rule is given."""
    rules.add("root", f"{write_thoughts(rules, thoughts)} {rules.exact(thoughts.tags.answer)} {answer}")
