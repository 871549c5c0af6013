"""Grammars in GBNF and JSON schemas: masks are those of a matcher that tries everything."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from grammar_oracle import Oracle, random_text, readable_tokenizer, readable_vocabulary, tokens_of

from minillama.engine.grammar import Grammar, GrammarState
from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf
from minillama.errors import OptionError
from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.grammar_trees import (
    LeftRecursion,
    Matcher,
    Rules,
    gbnf_of,
    has_negated_set,
    is_left_recursive,
    random_rules,
)
from tests.fuzz.schema_cases import change_schema, check_text, large_schema, random_schema

STEPS, TRIED = 3, 24  # tokens of a text, and those that are tried before each
MOST_STACKS, MOST_ELEMENTS = 40, 3000  # of the slow oracle
LONGEST = 10_000  # characters of a grammar that is tried at length
BOUNDS = ("too many ways", "repetitions in repetitions", "at most", "too much memory")
SEEDS = (
    'root ::= object\nvalue ::= object | "[" (value ("," value)*)? "]" | str | [0-9]+\n'
    'object ::= "{" (str ":" value ("," str ":" value)*)? "}"\nstr ::= "\\"" ([^"\\\\] | "\\\\" ["\\\\nu])* "\\""\n',
    'root ::= (expr "=" [ ]? num "\\n")+\nexpr ::= num ([-+*/] num)*\nnum ::= [0-9]{1,3} # digits\n',
    'root ::= <tool> !<[7]>* "a"{2,3} | [^\\x00-\\x1F\\u00e9]{0,4} ("ab" | "c" [1-9]){2}\n',
    'root ::= .{3} "日" [一-鿿]? | "\\U0001F600" x\nx ::= "(" x ")" | "a" x | ""\n',
)


@dataclass(frozen=True)
class GrammarCase:
    """A text in GBNF, or a schema. rules: the tree of the text, if it is whole."""

    text: str
    schema: object
    rules: Rules | None
    seed: int


class GrammarKind(Kind[GrammarCase]):
    """Grammars of any text on a vocabulary of whole characters."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._vocabulary = readable_vocabulary()

    def make(self, rng: random.Random) -> GrammarCase:
        choice, seed = rng.random(), rng.randrange(2**32)
        if choice < 0.35:
            rules = random_rules(rng)
            return GrammarCase(gbnf_of(rng, rules), None, rules, seed)
        if choice < 0.5:
            text = rng.choice((*SEEDS, gbnf_of(rng, random_rules(rng)))).encode()
            return GrammarCase(mutate_bytes(rng, text).decode("utf-8", "surrogateescape"), None, None, seed)
        if choice < 0.52:
            return GrammarCase(large_text(rng), None, None, seed)
        if choice < 0.54:
            return GrammarCase("", large_schema(rng), None, seed)
        schema: object = random_schema(rng)
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            change_schema(rng, schema)
        if rng.random() < 0.1:
            schema = mutate_bytes(rng, json.dumps(schema).encode()).decode("utf-8", "replace")
        return GrammarCase("", schema, None, seed)

    def run(self, given: GrammarCase) -> str:
        rng = random.Random(given.seed)
        is_recursive = given.rules is not None and is_left_recursive(given.rules)
        try:
            text = given.text if given.schema is None else schema_to_gbnf(given.schema)
            grammar = Grammar(text, self._vocabulary)
        except OptionError as error:
            reasons = (*BOUNDS, *(("begins with itself",) if is_recursive else ()))
            if given.rules is not None and not any(reason in str(error) for reason in reasons):
                raise Finding(f"a grammar is refused: {error}") from error
            raise
        if is_recursive:
            raise Finding("a grammar that begins with itself is accepted")
        if given.rules is not None:
            self._compare(grammar.start(), given.rules, rng)
            self._read_bytes(grammar, given.rules, rng)
            return "grammar"
        if given.schema is None:
            self._compare_stacks(text, grammar.start(), rng)
            return "text"
        schema = json.loads(given.schema) if isinstance(given.schema, str) else given.schema
        for _ in range(2):
            found, ended = random_text(grammar, rng, most=40 if len(text) < LONGEST else 5)
            if ended:
                check_text(found, schema)
        return "schema"

    def files(self, given: GrammarCase) -> dict[str, bytes]:
        if given.schema is None:
            return {"grammar.gbnf": given.text.encode("utf-8", "surrogateescape")}
        schema = given.schema if isinstance(given.schema, str) else json.dumps(given.schema, indent=1)
        return {"schema.json": schema.encode("utf-8", "replace")}

    def _compare(self, state: GrammarState, rules: Rules, rng: random.Random) -> None:
        """Masks, and tokens by themselves, against the matcher."""
        pieces, ends, text = self._vocabulary.pieces, readable_tokenizer().eog, ""
        for _ in range(STEPS):
            allowed = tokens_of(state.allowed())
            if state.is_complete != (is_complete := Matcher(rules, text).is_complete):
                raise Finding(f"{text!r}: complete is {state.is_complete}")
            tried = {*rng.sample(range(len(pieces)), TRIED), *rng.sample(allowed, min(TRIED, len(allowed))), *ends}
            for token in tried:
                fits = is_complete if token in ends else _fits(rules, text + pieces[token].decode())
                if (token in allowed) != fits or state.allows(token) != fits:
                    shown = f"{token in allowed} in the mask, {state.allows(token)} by itself, {fits} by the matcher"
                    raise Finding(f"{pieces[token]!r} after {text!r}: {shown}")
            others = [token for token in allowed if token not in ends]
            if not others:
                return
            token = rng.choice(others)
            state, text = state.accept(token), text + pieces[token].decode()

    def _compare_stacks(self, text: str, state: GrammarState, rng: random.Random) -> None:
        """The same against all stacks: for texts without a tree."""
        if len(text) > LONGEST or len(state.grammar.machine.elements) > MOST_ELEMENTS:
            tokens_of(state.allowed())
            return
        oracle = Oracle(text, readable_tokenizer())
        for _ in range(STEPS):
            allowed = tokens_of(state.allowed())
            if len(oracle.stacks) > MOST_STACKS or not allowed or oracle.ended:
                return
            expected = oracle.allowed()
            if allowed != expected:
                raise Finding(f"tokens {allowed} are allowed; {expected} by the oracle")
            token = rng.choice(allowed)
            oracle.accept(token)
            state = state.accept(token)

    def _read_bytes(self, grammar: Grammar, rules: Rules, rng: random.Random) -> None:
        """A random text in any pieces fits where the matcher says so."""
        pieces = [piece for piece in self._vocabulary.pieces[3:] if piece]
        text = b"".join(rng.choices(pieces, k=rng.randrange(1, 4)))
        state: GrammarState | None = grammar.start()
        place = 0
        while place < len(text) and state is not None:
            size = rng.randrange(1, 4)
            state = state.accept_part(0, text[place : place + size])
            place += size
        fits = _fits(rules, text.decode())
        if (state is not None) != fits and (state is not None or not has_negated_set(rules)):
            raise Finding(f"{text.decode()!r} in pieces: {state is not None}, {fits} by the matcher")


def _fits(rules: Rules, text: str) -> bool:
    """Whether a text is the beginning of one that fits."""
    try:
        matcher = Matcher(rules, text)
    except LeftRecursion:
        raise Finding("a grammar that begins with itself is accepted") from None
    return matcher.is_complete or matcher.goes_on


def large_text(rng: random.Random) -> str:
    """A grammar of many parts, or one that can be read in very many ways."""
    count = rng.choice((50, 300, 2000, 20_000, 200_000))
    many = "".join(chr(0x4E00 + number) for number in range(min(count, 20_000)))
    return rng.choice((
        f'root ::= "{many}"', f"root ::= [{many}]", "root ::= " + " ".join(f"[{c}]" for c in many[:5000]),
        f'root ::= "{"a" * count}"{{{rng.choice((1, 50, 2000))}}}', f"root ::= <[{'9' * count}]>",
        f'root ::= "a"{{{"9" * count}}}', "root ::= " + "(" * count, "root ::= " + '("a" | ' * count,
        "root ::= " + "|".join(['"ab"'] * count), "root ::= " + "[a-c]?" * count, "root ::= " + ".{0,9}" * count,
        'root ::= ("a"* "a"*){8} "b"', 'root ::= "a" root root | "a"', 'root ::= ("a"?){1000}',
        'root ::= x\nx ::= "a" x y | "a" x z | "a"\ny ::= "b"\nz ::= "b" | "c"', f"{'r' * count} ::= [a]",
        "".join(f"r{i} ::= r{i + 1} r{i + 1} | \"a\"\n" for i in range(24)) + 'r24 ::= "a"\nroot ::= r0',
        "".join(f"r{i} ::= r{i + 1}\n" for i in range(count)) + f'r{count} ::= "a"\nroot ::= r0',
        "".join(f"r{i} ::= r{i + 1}?\n" for i in range(count)) + f'r{count} ::= "a"\nroot ::= r0',
        "root ::= " + " ".join(f"[^{c}]*" for c in many[:300]), "# " * count + "\n" * count + 'root ::= "a"',
        "root ::= [" + "\\U0010FFFF-\\U00000000" * count + "]",
        "root ::= " + " ".join(f"n{i}" for i in range(count)) + "".join(f'\nn{i} ::= ""' for i in range(count)),
        'root ::= "\\uD800" | [\\uD800-\\uDFFF] | "\\UFFFFFFFF"',
    ))  # fmt: skip


KIND = GrammarKind
