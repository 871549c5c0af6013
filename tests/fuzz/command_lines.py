"""Random command lines from the tables of options, with values of any kind."""

import argparse
import random
from functools import cache

from minillama.cli import ALIASES, COMMANDS, build_parser
from tests.fuzz import hostile_values

# Values that some option takes. Paths are relative to a scratch folder, and none leads out of it.
WORDS = (
    "0", "1", "-1", "2", "4", "8", "16", "32", "64", "512", "2048", "on", "off", "auto", "true", "false", "none",
    "all", "f16", "f32", "q8_0", "Q4_K_M", "Q8_0", "q4_0", "COPY", "chatml", "llama3", "layer", "tensor", "row",
    "cpu", "0.5", "1.0", "1e3", "0x10", "1-4", "1-4+1", "1-8*2", "1,2,3", "3,1", "3/1", "15043+1", "2-inf",
    "edskypmxt", "top_k;temperature", "md", "csv", "json", "jsonl", "sql", "model.gguf", "missing.gguf", "folder",
    "text.txt", "tiny", "token_embd=f16", "a=int:4", "{}", '{"a": 1}', "[", "hello world",
)  # fmt: skip
NEVER = ("--rpc", "--workers", "--cluster", "--coordinator", "--num-processes", "--process-id")  # call other machines


@cache
def actions(command: str) -> tuple[argparse.Action, ...]:
    """The options of a command, and its positional words."""
    parser = build_parser([command])
    found = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return tuple(found.choices[command]._actions)


@cache
def variables(command: str) -> tuple[str, ...]:
    """The environment variables of a command's options."""
    parser = build_parser([command])
    found = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return tuple(sorted(found.choices[command]._variables))


def random_words(rng: random.Random, command: str, *, calls_others: bool) -> list[str]:
    """Options and words after a command. calls_others: with options that would call other machines."""
    options = [action for action in actions(command) if action.option_strings]
    if not calls_others:
        options = [action for action in options if not set(action.option_strings) & set(NEVER)]
    words: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5, 12))):
        action = rng.choice(options)
        name = rng.choice(action.option_strings)
        if rng.random() < 0.1:
            name = rng.choice((name[:-1], name + "x", name.replace("-", "_"), name.upper(), "-" + name, name[1:]))
        count = action.nargs if isinstance(action.nargs, int) else 1
        values = [value(rng, action) for _ in range(count if rng.random() < 0.9 else rng.randrange(4))]
        if values and rng.random() < 0.15:
            words.append(f"{name}={values[0]}")
        else:
            words += [name, *values]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        words.insert(rng.randrange(len(words) + 1), value(rng, None))
    return words


def value(rng: random.Random, action: argparse.Action | None) -> str:
    """The text of a value: often of the right kind, without a slash, which could lead out of the folder."""
    choice = rng.random()
    if action is not None and action.choices and choice < 0.6:
        found = str(rng.choice(list(action.choices)))
    elif choice < 0.7:
        found = rng.choice(WORDS)
    elif choice < 0.85:
        found = str(hostile_values.integer(rng) if rng.random() < 0.6 else hostile_values.floating(rng))
    else:
        found = hostile_values.text(rng)
    return found.replace("/", "|").replace("\0", "0").encode("utf-8", "replace").decode()


def random_command(rng: random.Random) -> str:
    """A command, sometimes by another name."""
    return rng.choice((*COMMANDS, *COMMANDS, *ALIASES))
