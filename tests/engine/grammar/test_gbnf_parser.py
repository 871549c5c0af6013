"""GBNF: what is read, and what is refused with line and column."""

import time

import pytest
from grammar_oracle import readable_vocabulary, tokens_of

from minillama.engine.grammar import Grammar, pushdown
from minillama.engine.grammar.gbnf_parser import parse_gbnf
from minillama.engine.grammar.rules import CharSet, RuleRef, TokenSet
from minillama.errors import OptionError


def only(text: str) -> object:
    """The alternatives of the root of a grammar."""
    rules = parse_gbnf(text, lambda name: 7 if name == "<think>" else None)
    return rules.alternatives[rules.start]


def characters(text: str) -> tuple[CharSet, ...]:
    return tuple(CharSet(((ord(character), ord(character)),)) for character in text)


class TestElements:
    def test_literals_and_escapes(self) -> None:
        assert only(r'root ::= "a\"\\\n\t\r\x41\u00e9\U0001F600\[\]\-"') == [characters('a"\\\n\t\rAé😀[]-')]

    def test_sets(self) -> None:
        assert only(r"root ::= [a-z0-9_-] [^\]\x00-\x1F] .") == [
            (
                CharSet(((97, 122), (48, 57), (95, 95), (45, 45))),
                CharSet(((93, 93), (0, 31)), negated=True),
                CharSet(((0, 0x10FFFF),)),
            )
        ]

    def test_tokens(self) -> None:
        assert only("root ::= <think> !<[12]>") == [(TokenSet(7), TokenSet(12, negated=True))]

    def test_comments_and_lines(self) -> None:
        text = '# one\nroot ::= # two\n  "a" | # three\n "b" ( "c" # four\n | "d" )\r\n\r\nother ::= "x" # five'
        assert only(text) == [characters("a"), (*characters("b"), RuleRef(1))]

    def test_the_last_rule_of_a_name_counts(self) -> None:
        assert only('root ::= "a"\nroot ::= "b"') == [characters("b")]


@pytest.mark.parametrize(
    ("times", "counts"),
    [("", {1}), ("?", {0, 1}), ("*", {0, 1, 2, 5}), ("+", {1, 2, 5}), ("{2}", {2}), ("{0}", {0}), ("{1,3}", {1, 2, 3}),
     ("{,3}", None), ("{2,}", {2, 5}), ("{ 1 , 2 }", {1, 2}), ("{2}{2}", {4})],
)  # fmt: skip
def test_repetitions(times: str, counts: set[int] | None) -> None:
    if counts is None:
        with pytest.raises(OptionError, match="expected a number"):
            only(f'root ::= "a"{times}')
        return
    grammar = Grammar(f'root ::= "a"{times} "b"', readable_vocabulary())
    machine = grammar.machine
    for count in (0, 1, 2, 3, 4, 5):
        complete = machine.is_complete(machine.read(machine.start, "a" * count + "b"))
        assert complete == (count in counts or (count > 2 and 5 in counts)), count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rule root"),
        ('other ::= "a"', "has no rule root"),
        ("root ::= x", "rule 'x' is used but not defined"),
        ('root = "a"', r"line 1, column 6 \('= \"a\"'\): expected ::="),
        ('root ::= "a', r"column 12 \(the end\): unexpected end"),
        ("root ::= [a", "unexpected end"),
        ("root ::= []", "a set of no characters"),
        (r'root ::= "\q"', r"unknown escape '\\\\q'"),
        (r'root ::= "\x4"', "unknown escape"),
        ('\n\nroot ::= "a" )', r"line 3, column 14 \('\)'\): expected an element"),
        ('root ::= ( "a"', r"expected \)"),
        ("root ::= *", "nothing to repeat"),
        ('root ::= ""*', "nothing to repeat"),
        ('root ::= "a"{x}', "expected a number"),
        ('root ::= "a"{1', r"expected \}"),
        ('root ::= "a"{3,1}', "from 3 to 1 repetitions"),
        ('root ::= "a"{2001}', "at most 2000"),
        ('root ::= ("a"{50} "b"){50}', None),
        ('root ::= ("a"{0,50} "b"){50}', "repetitions in repetitions, 2550"),
        ("root ::= <other>", "'<other>' is not one token of this model"),
        ("root ::= <", "expected a token"),
        (f"root ::= <[{'9' * 5000}]>", "is not one token of this model"),
        (f'root ::= "{"a" * 1000}"{{200}}', "repetitions make more than 100000 elements"),
        ("root ::= root", "rule 'root' begins with itself"),
        ('root ::= x "a"\nx ::= y\ny ::= "b"? x', "begins with itself"),
        ('root ::= "a"\nother ::= other', "'other' begins with itself"),
        ('root ::= ("a"?)*', "begins with itself"),
        ("root ::= " + "(" * 200 + '"a"' + ")" * 200, "more than 50 parentheses"),
        (f"{'a' * 300} ::= [a]", "300 characters"),
    ],
)
def test_refused(text: str, message: str | None) -> None:
    if message is None:
        only(text)
        return
    with pytest.raises(OptionError, match=message) as caught:
        only(text)
    assert "\n" not in str(caught.value)


class TestHostile:
    """Grammars that would take for ever are refused, or stay quick."""

    @pytest.mark.parametrize(
        "text",
        [
            'root ::= x\nx ::= "a" x y | "a" x z | "a"\ny ::= "b"\nz ::= "b" | "c"',  # stacks double with each a
            'root ::= ("a"* "a"*){8} "b"',
            'root ::= "a" root root | "a"',
            "root ::= " + " | ".join(f'"{"a" * n}b"' for n in range(1, 100)),
            'root ::= "a"{1000} "b"\nx ::= "c"{0,2000}',
            "root ::= " + " ".join(["[a-c]?"] * 100),
            "root ::= " + ".{0,9}" * 300,
            "".join(f'r{i} ::= r{i + 1} r{i + 1} | "a"\n' for i in range(24)) + 'r24 ::= "a"\nroot ::= r0',
        ],
    )
    def test_bounded(self, text: str) -> None:
        started = time.process_time()
        try:
            state = Grammar(text, readable_vocabulary()).start()
            token = readable_vocabulary().pieces.index(b"a")
            for _ in range(12):
                if token not in tokens_of(state.allowed()):
                    break
                state = state.accept(token)
        except OptionError as error:
            assert "too many ways" in str(error)
        assert time.process_time() - started < 20

    def test_work_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A mask that steps through many states of many stacks; the characters after it have a budget of their own."""
        steps = [f"[{chr(97 + place % 25)}{chr(98 + place % 25)}]?" for place in range(400)]
        monkeypatch.setattr(pushdown, "MOST_WORK", 20_000)
        state = Grammar("root ::= " + " ".join(steps), readable_vocabulary()).start()
        with pytest.raises(OptionError, match="too many ways to read this text"):
            state.allowed()
        assert state.accept_text("abcdefghijklmnopqrstuvwxy" * 12).is_complete

    def test_memory_of_stacks_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = 'root ::= "(" root ")" | ' + " ".join(["[a-c]?"] * 1000)
        monkeypatch.setattr(pushdown, "MOST_CELLS", 1 << 20)
        state = Grammar(text, readable_vocabulary()).start().accept_text("(" * 5)
        with pytest.raises(OptionError, match="too much memory for this text"):
            state.accept_text("(" * 50)

    def test_many_sets(self) -> None:
        """Every character is a set of its own, and the table of sets and characters grows with the square."""
        many = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))
        with pytest.raises(OptionError, match="20000 different sets of characters"):
            Grammar(f'root ::= "{many}"', readable_vocabulary())

    def test_many_rules_of_the_empty_text(self) -> None:
        names = [f"n{number}" for number in range(10_000)]
        text = f"root ::= {' '.join(names)}\n" + "".join(f'{name} ::= ""\n' for name in names)
        started = time.process_time()
        rules = parse_gbnf(text, lambda name: None)
        assert len(rules.names) == 10_001
        assert time.process_time() - started < 5

    def test_a_large_table_is_refused(self) -> None:
        """Its cells are counted, states times classes of characters."""
        many = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
        machine = Grammar(f'root ::= "{many}" .{{2000}}', readable_vocabulary()).machine
        with pytest.raises(OptionError, match="too much memory"):
            for place in range(len(machine.elements)):
                for under in range(8):
                    machine.state_at(place, under)

    def test_deep_recursion_is_fine(self) -> None:
        grammar = Grammar('root ::= "(" root ")" | "x"'.replace("(", "[").replace(")", "]"), readable_vocabulary())
        machine = grammar.machine
        state = machine.read(machine.start, "[" * 5000 + "x" + "]" * 5000)
        assert machine.is_complete(state)
