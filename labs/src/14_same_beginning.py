# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 14 · The same beginning
#
# Most prompts of a server begin as an earlier one did: the same system message, the same document, the same conversation
# with one more question. Keys and values of a token depend only on the tokens before it (lab 05), so the cache of an equal
# beginning can be used again. It is the largest gain of a server, and a single changed line near the top destroys it.
#
# | | |
# |---|---|
# | **Afterwards you can** | count what a prefix cache saves, find the line that breaks it from counts alone, and keep the books of a cache in blocks |
# | **Time** | 60 minutes |
# | **You should know** | lab 05 (KV cache), lab 13 (slots) |
# | **Runs on** | any laptop, half a minute of computing, no network |
# | **In llama.cpp** | `cache_prompt`, `--cache-ram`, `--slot-prompt-similarity`, `tokens_cached`; in vLLM: automatic prefix caching, blocks |

# %%
import inspect

import numpy as np

from minillama.lab import IntSlider, Panel, Prediction, running, show
from minillama.lab.checks import lab14 as check
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.serving_plots import two_sided
from minillama.lab.serving.cache_blocks import CacheBlocks, faulty_release, reserved_tokens
from minillama.measure.tables import plain_table

MODEL = None  # or the path of your own GGUF file
llm = lab_model(MODEL)
engine = llm.batch_engine(slots=2, ctx_size=1024 if MODEL else 512)

# %% [markdown]
# ## 1. A conversation that grows
#
# Each turn sends the whole conversation again: header, rules, all earlier turns, the new question.

# %%
RULES = (
    "Tell a story for children. Use short words. The story has a fox, a river and a happy end. " * 4
)
QUESTIONS = (
    "Who is the fox?",
    "Where does she live?",
    "What does she eat?",
    "Who is her friend?",
    "What did they find?",
)


def prompts(header, place):
    """The prompts of all turns; the header is at the top or just before the question."""
    told, found = "", []
    for turn, question in enumerate(QUESTIONS):
        line = header(turn) + "\n"
        found.append(
            line + RULES + told + question if place == "top" else RULES + told + line + question
        )
        told += question + " We do not know yet. "
    return found


def run(texts):
    """(tokens of the prompt, of these cached, milliseconds to the first token) of each turn."""
    rows = []
    for text in texts:
        done = (stream := engine.submit(text, n=1, temp=0.0)).finish()
        rows.append((stream.prompt_tokens, stream.cached_tokens, 1e3 * done.timings.first_token))
    return rows


saving = Prediction(
    "14",
    "first token, without over with a cache",
    "Turn 5 with the cache of turn 4, against turn 5 without any cache: the time to first "
    "token is how many times shorter?",
    "times",
)
saving.ask()

# %% tags=["solution"]
saving.record(2)

# %%
texts = prompts(lambda turn: "Be kind.", "top")
with watched_load(), running("turns of a chat", seconds=60 if MODEL else 6):
    # The first time compiles. It has another first word, so nothing is reused.
    run(prompts(lambda turn: "Warm words.", "top"))
    same = run(texts)
    cold = [
        1e3
        * engine.submit(texts[-1], n=1, temp=0.0, cache_prompt=False).finish().timings.first_token
        for _ in range(5)
    ]
warm = np.median([row[2] for row in same[1:]])  # turns 2 to 5 read about the same number of tokens
show(saving.compare(float(np.median(cold) / warm), model=same[-1][0] / (same[-1][0] - same[-1][1])))

# %% [markdown]
# *Model says*: all tokens of the prompt over those that are not in the cache. The rest of the time (a pass, sampling, the
# scheduler) does not shrink.
#
# ### Exercise 1: tokens that a prefix cache saves
# `prompts` are lists of tokens that come one after the other, and the cache is never full. How many tokens of each are
# reused? At most all but one: the last token must be run, because its logits are needed.


# %% tags=["exercise"]
def cached_tokens(prompts):
    """Reused tokens of each prompt."""
    raise NotImplementedError


# %% tags=["solution"]
def cached_tokens(prompts):
    """Reused tokens of each prompt."""
    found = []
    for place, prompt in enumerate(prompts):
        best = 0
        for other in prompts[:place]:
            equal = 0
            while equal < min(len(prompt), len(other)) and prompt[equal] == other[equal]:
                equal += 1
            best = max(best, equal)
        found.append(min(best, len(prompt) - 1))
    return found


# %% [markdown] tags=["hint"]
# For each prompt, count equal tokens from the beginning with every earlier prompt, and take the largest count.

# %% tags=["check"]
check.cached_tokens(cached_tokens)

# %% [markdown]
# ## 2. The line that changes
#
# Now the header holds the time of day, as many applications send it. It changes from turn to turn. First at the top, then
# just before the question.


# %%
def clock(turn):
    """A header line that changes."""
    return f"It is {9 + turn} hours and {7 * turn + 3} minutes."


with running("both places", seconds=60 if MODEL else 3):
    changing = {place: run(prompts(clock, place)) for place in ("top", "end")}

# %% tags=["check-output"]
rows = [
    (
        f"{turn + 1}",
        *(
            f"{done[turn][1]} of {done[turn][0]}"
            for done in (same, changing["top"], changing["end"])
        ),
    )
    for turn in range(1, len(QUESTIONS))
]
print(
    plain_table(
        ("turn", "no clock", "clock at the top", "clock before the question"),
        rows,
        right=range(1, 4),
    )
)

# %%
names = {
    "no clock": same,
    "clock at the top": changing["top"],
    "clock before the question": changing["end"],
}
show(
    bars(
        list(names),
        [sum(done[1] for done in rows[1:]) for rows in names.values()],
        "Tokens reused in turns 2 to 5",
        "tokens",
    )
)
lost = measurement(
    "14",
    "share lost to a clock at the top",
    1 - sum(row[1] for row in changing["top"][1:]) / sum(row[1] for row in same[1:]),
    "share",
)

# %% [markdown]
# The same words, another order. (At the top a few tokens are still equal: "It is".) Nothing in the answers shows the
# difference, only the counts do: `cached_tokens` in the usage of OpenAI's interface, `tokens_cached` and `cache_n` in
# llama-server's, `prompt_tokens_cached_total` at `/metrics`.
#
# ### Exercise 2: find the line from counts
# A prompt consists of lines with `lengths` tokens. In several turns, `cached` tokens were reused. Return the index of the
# first line that changes. Two values may share their first tokens by chance, so look at all turns.


# %% tags=["exercise"]
def changing_line(lengths, cached):
    """Index of the first line that changes from turn to turn."""
    raise NotImplementedError


# %% tags=["solution"]
def changing_line(lengths, cached):
    """Index of the first line that changes from turn to turn."""
    return int(np.searchsorted(np.cumsum(lengths), min(cached), side="right"))


# %% [markdown] tags=["hint"]
# All tokens before the first change are always reused. `np.cumsum(lengths)` are the ends of the lines: in which line does
# the smallest count end?

# %% tags=["check"]
check.changing_line(changing_line)

# %% [markdown]
# ## 3. Slots or blocks
#
# minillama and llama-server give each text a *slot* of fixed capacity. It is simple and quick, and a short text wastes most
# of it. vLLM gives texts *blocks* of 16 tokens, one after the other (PagedAttention, 2023): waste is less than one block a
# text, and blocks with the same beginning are shared instead of copied.
#
# ### Exercise 3: tokens that blocks waste
# Texts of `lengths` tokens have blocks of `block` tokens each. How many tokens are reserved and not used?


# %% tags=["exercise"]
def waste(lengths, block):
    """Tokens that are reserved and not used."""
    raise NotImplementedError


# %% tags=["solution"]
def waste(lengths, block):
    """Tokens that are reserved and not used."""
    return sum(-length % block for length in lengths)


# %% [markdown] tags=["hint"]
# A text needs `math.ceil(length / block)` blocks. In Python `-length % block` is what is missing to the next multiple.

# %% tags=["check"]
check.waste(waste)

# %%
SIZES = (1, 4, 16, 64, 256, 1024, 4096)


def waste_by_block(settings):
    """The curve without widgets: settings in, figure out."""
    random = np.random.default_rng(14)
    lengths = (
        np.clip(random.lognormal(np.log(settings["median"]), settings["spread"] / 10, 64), 1, 4096)
        .astype(int)
        .tolist()
    )
    shares = [100 * (1 - sum(lengths) / reserved_tokens(lengths, size)) for size in SIZES]
    title = f"Cache that is reserved and not used, 64 texts of about {settings['median']} tokens"
    return two_sided(
        SIZES,
        {"waste": shares},
        title,
        "tokens of a block; 4096: a slot",
        "percent",
        logarithmic="x",
    )


# %% tags=["panel"]
panel = Panel(
    [
        IntSlider("median", "median tokens", 20, 2000, 300, "of a text"),
        IntSlider("spread", "spread, tenths", 0, 20, 10, "of the logarithm"),
    ],
    waste_by_block,
).show()

# %% tags=["check-output"]
lengths = [30, 120, 700, 80, 2400, 45, 310, 900]
for size in SIZES:
    print(
        f"blocks of {size:4}: {reserved_tokens(lengths, size):6} tokens reserved for "
        f"{sum(lengths)}, {1 - sum(lengths) / reserved_tokens(lengths, size):.0%} wasted"
    )

# %% [markdown]
# ## 4. The books of a cache in blocks
#
# Blocks with the same beginning are shared, so each block has a number of `uses`. Here is `release`, which gives back the
# blocks of a text that has ended. It has a fault:

# %%
print(inspect.getsource(faulty_release))
blocks = CacheBlocks(count=8, size=4)
blocks.add(1, [1, 2, 3, 4, 5, 6])
blocks.add(2, [1, 2, 3, 4, 9, 9])  # the first block is shared
print("tables:", blocks.tables, "uses:", blocks.uses)
faulty_release(blocks, 1)
print("after the release of text 1:", *blocks.problems(), sep="\n  ")

# %% [markdown]
# ### Exercise 4: mend it
# Write `release(blocks, text)`. It changes `blocks.tables`, `blocks.uses`, `blocks.free` (a list), and `blocks.by_prefix`
# (tokens to block). A block is free when no text has it any more, and then it must not be found by its prefix. Texts that
# are still there keep everything. The check runs 400 random operations.


# %% tags=["exercise"]
def release(blocks, text):
    """Give back the blocks of a text; shared blocks stay with the others."""
    raise NotImplementedError


# %% tags=["solution"]
def release(blocks, text):
    """Give back the blocks of a text; shared blocks stay with the others."""
    for block in blocks.tables.pop(text):
        blocks.uses[block] -= 1
        if blocks.uses[block] == 0:
            del blocks.uses[block]
            blocks.free.append(block)
            blocks.by_prefix = {
                prefix: each for prefix, each in blocks.by_prefix.items() if each != block
            }


# %% [markdown] tags=["hint"]
# Decrease `uses` first. Only a block whose uses are 0 goes to `free`, and only then its entry in `by_prefix` goes away.

# %% tags=["check"]
check.release(release)

# %%
books = CacheBlocks(count=8, size=4)
books.add(1, [1, 2, 3, 4, 5, 6])
print("reused by text 2:", books.add(2, [1, 2, 3, 4, 9, 9]), "tokens")
print("problems:", attempt(release, books, 1) or books.problems() or "none")
engine.close()

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * An equal *beginning* can be reused, an equal middle cannot: later keys have seen what came before them.
# * Put what never changes first and what changes last: rules, documents, conversation, then the clock and the question.
# * Watch the count of cached tokens. Answers do not show that a cache is missed.
# * A slot wastes what a text does not fill. Blocks waste less than one block a text, and can be shared; then they must be
#   counted.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | reuse the beginning | `"cache_prompt": true`, the default | the same; `cache_prompt=True` |
# | keep prompts in memory | `--cache-ram N` | the same |
# | choose a slot by its beginning | `--slot-prompt-similarity 0.1` | the same |
# | how much was reused | `timings.cache_n`, `cached_tokens` in the usage | the same; `stream.cached_tokens` |
#
# ## When you get an error
#
# * `exceeds the available context`, or a prompt that does not fit: raise `ctx_size` in the first cell, or lower RULES.
# * Turn 2 has 0 cached tokens in all columns: `cache_prompt=False` is set, or the engine was closed and opened again.
# * `the table of another text has changed`: `pop` the table of `text` only.
