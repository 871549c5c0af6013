"""The rules of one grammar of calls: schemas, and the texts around them."""

import re
from collections.abc import Sequence

from minillama.engine.grammar.json_schema.gbnf_text import literal
from minillama.engine.grammar.json_schema.notation import JSON, Notation
from minillama.engine.grammar.json_schema.schema_grammar import SchemaRules
from minillama.engine.grammar.text_until import until_rules
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.split_special_tokens import split_special


class CallRules(SchemaRules):
    """Writer of rules with the texts of a format.

    Control tokens of the model are tokens of the grammar.
    """

    def __init__(self, tokenizer: Tokenizer, notation: Notation = JSON) -> None:
        super().__init__(notation)
        self._tokenizer = tokenizer

    def exact(self, text: str) -> str:
        """A text as an expression."""
        parts = split_special(text, self._tokenizer.specials)
        return " ".join(literal(part) if isinstance(part, str) else f"<[{part}]>" for part in parts if part != "")

    def tag(self, text: str) -> str:
        """A text as an expression; its new lines may be left out."""
        parts = [part for part in re.split("(\n)", text) if part]
        return " ".join(self.line() if part == "\n" else self.exact(part) for part in parts)

    def line(self) -> str:
        """A new line that may be left out."""
        return self.add("line", '"\\n"?')

    def until(self, name: str, words: Sequence[str], never: Sequence[str] = ()) -> str:
        """Any text up to one of the words, which belongs to it; see `until_rules`."""
        for rule, text in until_rules(name, words, never).items():
            self.add(rule, text)
        return name
