"""Generator of short synthetic stories, and of talks in which a user requests one.

python data/stories.py --count 3 --seed 1
"""

import argparse
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import talk
import words
from story_plots import DAY, ENDING, OPENING, PLOTS, SOON, Plot

Message = dict[str, str]
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
SPOKEN = re.compile(r"\.(\" (?:(?:he|she|[A-Z]\w+) )?(?:said|asked|thought(?! for)|called|shouted|cried)\b)")
FRIGHTS = ("monster", "wolf", "bear", "tiger", "dragon", "ghost")
CAKES = ("cake", "pie", "chocolate cake", "birthday cake", "honey cake", "apple pie", "loaf of bread")
CAKE_PARTS = ("sugar", "honey", "milk", "butter", "flour", "chocolate")
CLOTHES = ("scarf", "coat", "blanket", "sweater", "cloth")
SWEETS = ("cookies", "cupcakes", "muffins", "pancakes", "candies", "strawberries", "cherries", "honey buns")


@dataclass(frozen=True)
class Story:
    """A story and the topics under which a user can request it."""

    text: str
    topics: tuple[str, ...]


def choose(text: str, rng: random.Random) -> str:
    """Choose one alternative of every `[a|b|c]`, the innermost first."""
    while CHOICE.search(text):
        text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text


def fill(text: str, scene: Mapping[str, str]) -> str:
    """Fill the slots with words of the scene; KeyError for an unknown slot."""
    while SLOT.search(text):
        text = SLOT.sub(lambda match: scene[match[1]], text)
    return text


def article(text: str) -> str:
    """Change `a` to `an` before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiouAEIO])(?!uni|one\b|use)", r"\1n ", text)


def polish(text: str) -> str:
    """Correct spaces, articles, capital letters and paragraphs of a filled text."""
    text = article(re.sub(r"\s+", " ", text).strip())
    paragraphs = [part.strip() for part in text.split("<p>")]
    paragraphs = [part[:1].upper() + part[1:] for part in paragraphs if part]
    text = re.sub(r"([.!?]\"? )([a-z])", _capital, "\n".join(paragraphs))
    return SPOKEN.sub(r",\1", text)


def _capital(match: re.Match[str]) -> str:
    # A sentence can continue after a closing quote ("Why?" asked Tom): the plots contain those capital letters.
    return match[0] if '"' in match[1] else match[1] + match[2].upper()


def draw_character(rng: random.Random, taken: Sequence[str], human: float) -> tuple[str, str, bool]:
    """Draw a name, a kind and a gender (True: she) that are not taken yet."""
    she = rng.random() < 0.5
    if rng.random() < human:
        kind = rng.choice(words.PEOPLE_GIRL if she else words.PEOPLE_BOY)
        names: Sequence[str] = words.GIRLS if she else words.BOYS
    else:
        kind = rng.choice(words.ANIMALS) if rng.random() < 0.8 else rng.choice(words.MAGIC)
        names = (*words.PETS, *(words.GIRLS if she else words.BOYS)[:12])
        she = {"hen": True, "cow": True, "fairy": True, "witch": True, "mermaid": True, "wizard": False}.get(kind, she)
    if kind in taken:
        return draw_character(rng, taken, human)
    name = rng.choice([name for name in names if name not in taken])
    return name, kind, she


def draw_scene(rng: random.Random) -> dict[str, str]:
    """Draw the words of all slots: three characters, things, places, feelings."""
    scene: dict[str, str] = {}
    taken: list[str] = []
    for prefix, role, human in (("", "hero", 0.4), ("f", "friend", 0.12), ("o", "other", 0.2)):
        name, kind, she = draw_character(rng, taken, human)
        taken += [name, kind]
        scene |= {role: name, f"{prefix or 'h'}kind": kind}
        pronouns = ("she", "She", "her", "her") if she else ("he", "He", "him", "his")
        scene |= dict(zip((f"{prefix}he", f"{prefix}He", f"{prefix}him", f"{prefix}his"), pronouns, strict=True))
    for slot, choices in (("thing", words.TOYS), ("hiding", words.HIDING)):
        drawn = rng.sample(choices, 3)
        scene |= {f"{slot}{index}": item for index, item in enumerate(drawn, 1)}
    scene["thing"] = scene.pop("thing1")
    if rng.random() < 0.5:
        scene["thing"] = f"{rng.choice(words.COLOURS)} {scene['thing']}"
    for slot, choices in (
        ("trait", words.TRAITS), ("look", words.LOOKS), ("food", words.FOODS), ("foods", SWEETS),
        ("place", words.PLACES), ("home", words.HOMES), ("fear", words.FEARS), ("skill", words.SKILLS),
        ("seed", words.SEEDS), ("hurt", words.HURTS), ("build", words.BUILDS), ("weather", words.WEATHER),
        ("sound", words.SOUNDS), ("elder", words.ELDERS), ("colour", words.COLOURS), ("monster", FRIGHTS),
        ("cake", CAKES), ("missing", CAKE_PARTS), ("cloth", CLOTHES),
    ):  # fmt: skip
        scene[slot] = rng.choice(choices)
    scene["friend_or_hero"] = rng.choice((scene["hero"], scene["friend"]))
    scene["ending"] = choose(ENDING, rng)
    return scene


def write_story(rng: random.Random, plot: Plot | None = None) -> Story:
    """Write one story for `plot`, or for a random plot."""
    plot = plot or rng.choice(PLOTS)
    scene = draw_scene(rng)
    opening = choose(OPENING, rng).strip()
    # No second day after an opening with a day.
    scene["day"] = choose(SOON if opening.startswith("One {weather}") else DAY, rng)
    text = polish(fill(f"{opening} {choose(plot.text, rng)}", scene))
    topics = (
        "a {trait} {hkind}",
        "a {hkind}",
        "a {hkind} named {hero}",
        "a {hkind} called {hero}",
        "{hero} the {hkind}",
        *plot.topics,
    )
    if "{friend}" in plot.text:
        topics += ("a {hkind} and a {fkind}", "a {trait} {hkind} and {his} friend", "{hero} and {friend}")
    return Story(text, tuple(dict.fromkeys(article(fill(topic, scene)) for topic in topics)))


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def write_request(rng: random.Random, topics: Sequence[str]) -> str:
    """Write a request for a story on one of the topics."""
    text = article(rng.choice(talk.REQUESTS).format(topic=rng.choice(topics)))
    return text.lower().rstrip(".?!") if rng.random() < 0.1 else text


def small_talk(rng: random.Random) -> list[Message]:
    """One question that is not a request for a story, and its answer."""
    questions, answers = rng.choice(talk.SMALL_TALK)
    scene = draw_scene(rng)
    question = polish(fill(choose(rng.choice(questions), rng), scene))
    if rng.random() < 0.15:
        question = question.rstrip("?!.")
    return [user(question), assistant(polish(fill(choose(rng.choice(answers), rng), scene)))]


def first_words(rng: random.Random, story: Story) -> str:
    """The first words of a story, as a request for the rest of it."""
    first = story.text.split()[:14]
    return " ".join(first[: rng.randint(2, len(first))])


def write_talk(rng: random.Random, story: Story | None = None) -> list[Message]:
    """A talk about a story (a new one by default).

    Some talks have a greeting, other questions, thanks, or a second request.
    """
    messages: list[Message] = []
    if rng.random() < 0.1:
        messages.append({"role": "system", "content": rng.choice(talk.SYSTEM)})
    if rng.random() < 0.2:
        return messages + small_talk(rng) + (small_talk(rng) if rng.random() < 0.3 else [])
    if rng.random() < 0.15:
        messages += small_talk(rng)
    story = story or write_story(rng)
    messages += [
        user(first_words(rng, story) if rng.random() < 0.2 else write_request(rng, story.topics)),
        assistant(story.text),
    ]
    if rng.random() < 0.15:
        messages += (
            small_talk(rng)
            if rng.random() < 0.4
            else [user(rng.choice(talk.THANKS)), assistant(rng.choice(talk.WELCOME))]
        )
    if rng.random() < 0.12:
        again = write_story(rng)
        request = rng.choice(talk.AGAIN) if rng.random() < 0.4 else write_request(rng, again.topics)
        messages += [user(request), assistant(again.text)]
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description="Print some of the storyteller's synthetic training stories.")
    parser.add_argument("--count", type=int, default=3, help="number of stories (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--talk", action="store_true", help="talks instead of stories")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for _ in range(options.count):
        if options.talk:
            print("\n".join(f"{message['role']}: {message['content']}" for message in write_talk(rng)), end="\n\n")
        else:
            print(write_story(rng).text, end="\n\n")


if __name__ == "__main__":
    main()
