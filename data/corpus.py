"""Training data: documents, the tokenizer trained on them, and batches of tokens."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import stories
import words
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END, END_OF_TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|end|>"
SPECIAL = (BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN)
# Llama 3's pre-tokenizer ("llama-bpe" in GGUF).
PIECES = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
RENDER = jinja2.Environment().from_string(TEMPLATE)
NOUNS = (
    *words.ANIMALS, *words.MAGIC, *words.TOYS, *words.FOODS, "princess", "king", "queen", "tree", "flower", "car",
    "truck",
)  # fmt: skip
HERO = re.compile(
    r"\b(an? (?:[a-z]+,? ){0,2}(?:"
    + "|".join((*NOUNS, "girl", "boy", "man", "woman"))
    + r"))(?: (?:named|called) ([A-Z][a-z]+))?"
)
TINY_NAMES = (
    ("Lily", "Lucy", "Sara", "Mia", "Anna", "Molly", "Amy", "Jane", "Sue", "Lola",
     "Daisy", "Emma", "Ella", "Zoe", "Mary", "Jill", "Lisa"),
    ("Tim", "Tom", "Ben", "Sam", "Max", "Jack", "Bob", "Timmy", "Tommy", "Billy",
     "Joe", "Leo", "John", "Jim", "Mike", "Johnny", "Bobby"),
)  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """External stories: training part and held-out part."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Mix:
    """Shares of the documents: external stories, and talks (about either kind of story)."""

    external: float
    talks: float


EARLY = Mix(external=0.5, talks=0.3)
# Few external stories during the decay of the learning rate: there are few of them, and the model would memorise them.
LATE = Mix(external=0.1, talks=0.45)


def clean(text: str) -> str:
    """Replace typographic quotes and dashes; remove extra spaces and empty lines."""
    for old, new in (("“", '"'), ("”", '"'), ("’", "'"), ("‘", "'"), ("—", " - "), ("–", " - "), ("\t", " ")):
        text = text.replace(old, new)
    lines = (re.sub(r" +", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def read_texts(folder: Path, held_out: int = 80) -> Texts:
    """Read tinystories.txt of a folder, if it exists; the last stories are held out.

    <|endoftext|> separates the stories.
    """
    path = folder / "tinystories.txt"
    if not path.exists():
        return Texts((), ())
    found = tuple(clean(story) for story in path.read_text(encoding="utf-8").split("<|endoftext|>"))
    # Rare characters would cost capacity without a benefit.
    found = tuple(story for story in found if story.isascii() and 200 < len(story) < 2500)
    return Texts(found[:-held_out], found[-held_out:])


def rename(text: str, rng: random.Random) -> str:
    """Rename the people of a story, so that the model does not memorise it."""
    for names, new in zip(TINY_NAMES, (words.GIRLS, words.BOYS), strict=True):
        present = [name for name in names if re.search(rf"\b{name}\b", text)]
        fresh = [name for name in new if not re.search(rf"\b{name}\b", text)]
        chosen = dict(zip(present, rng.sample(fresh, min(len(fresh), len(present))), strict=False))
        if chosen:
            text = re.sub(r"\b(" + "|".join(chosen) + r")\b", lambda match, chosen=chosen: chosen[match[0]], text)
    return text


def topics(text: str) -> tuple[str, ...]:
    """Topics of a possible request, from the words of the story."""
    found = [f"{who} named {name}" if name else who for who, name in HERO.findall(text[:200])[:2]]
    return tuple(dict.fromkeys(found))


def render(messages: Sequence[stories.Message], prompt: bool = False) -> str:
    """The talk as text, with the chat template of the GGUF file."""
    return RENDER.render(messages=messages, add_generation_prompt=prompt)


def write_document(rng: random.Random, external: Sequence[str], mix: Mix = EARLY) -> str:
    """One document: a synthetic or external story, plain or requested in a talk."""
    story = None
    if external and rng.random() < mix.external:
        text = rng.choice(external)
        if rng.random() < 0.6:
            text = rename(text, rng)
        story = stories.Story(text, topics(text))
    talk = rng.random() < mix.talks
    if talk and (story is None or story.topics):
        return render(stories.write_talk(rng, story))
    return (story or stories.write_story(rng)).text


def train_tokenizer(external: Sequence[str], vocabulary: int, seed: int = 0, documents: int = 12000) -> Tokenizer:
    """Train a byte-level BPE vocabulary: special tokens, all 256 bytes, then merges."""
    rng = random.Random(f"tokenizer {seed}")
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    markers = re.compile(r"<\|\w+\|>")
    texts = (markers.sub("", write_document(rng, external)) for _ in range(documents))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokens_and_merges(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Vocabulary in the order of its ids, and the merges as GGUF writes them."""
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [" ".join(merge) for merge in model["merges"]]


def encode_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a document, with begin and end tokens."""
    return tokenizer.encode(f"{BEGIN}{text}{END}", add_special_tokens=False).ids


def _documents(rng: random.Random, tokenizer: Tokenizer, external: Sequence[str], mix: Mix) -> Iterator[list[int]]:
    while True:
        yield encode_document(tokenizer, write_document(rng, external, mix))


def batch(
    tokenizer: Tokenizer,
    external: Sequence[str],
    rows: int,
    length: int,
    seed: int,
    step: int,
    mix: Mix = EARLY,
) -> np.ndarray:
    """The training rows of one step, int32 [rows, length].

    They depend only on seed and step, so a resumed run is exact. Every second row starts with a new document, the
    others with the rest of the previous document.
    """
    documents = _documents(random.Random(f"train {seed} {step}"), tokenizer, external, mix)
    filled = np.zeros((rows, length), np.int32)
    rest: list[int] = []
    for row in range(rows):
        ids = rest if row % 2 else []
        while len(ids) < length:
            ids = ids + next(documents)
        filled[row], rest = ids[:length], ids[length:]
    return filled


def held_out(tokenizer: Tokenizer, external: Sequence[str], rows: int, length: int) -> np.ndarray:
    """Held-out rows, int32 [rows, length]: external stories, or synthetic documents if there are none."""
    rng = random.Random("held out")
    texts: Iterator[str] = iter(external) if external else iter(lambda: write_document(rng, ()), None)
    ids: list[int] = []
    for text in texts:
        ids += encode_document(tokenizer, text)
        if len(ids) >= rows * length:
            break
    rows = min(rows, len(ids) // length)
    return np.array(ids[: rows * length], np.int32).reshape(rows, length)
