"""Rules of any text up to one of some words: an Aho-Corasick automaton."""

from collections.abc import Sequence

from minillama.engine.grammar.json_schema.gbnf_text import set_member


def until_rules(name: str, words: Sequence[str], never: Sequence[str] = ()) -> dict[str, str]:
    """The rules, by name; the rule `name` is a text up to the first word.

    The word belongs to it.

    never: words that are not in the text. A state is the longest end of the text that begins a word. Each is one rule,
    which begins with a character.
    """
    known = (*words, *never)
    states = list(dict.fromkeys(word[:size] for word in known for size in range(len(word))))
    names = {state: name if not place else f"{name}-{place}" for place, state in enumerate(states)}
    letters = list(dict.fromkeys(character for word in known for character in word))
    rules = {}
    for state in states:
        choices, special = [], ""
        for letter in letters:
            text = state + letter
            if any(text.endswith(word) for word in never):
                special += set_member(ord(letter))
                continue
            if any(text.endswith(word) for word in words):
                choices.append(f"[{set_member(ord(letter))}]")
                special += set_member(ord(letter))
                continue
            after = next(end for end in (text[cut:] for cut in range(len(text) + 1)) if end in names)
            if after:
                choices.append(f"[{set_member(ord(letter))}] {names[after]}")
                special += set_member(ord(letter))
        rules[names[state]] = " | ".join([*choices, f"[^{special}] {name}"])
    return rules
