# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 04 · Sampling: from probabilities to a story
#
# A language model does not write. It says, for every token of its vocabulary, how likely it is to come next. *Which* token is taken is
# decided by a handful of lines outside of the model, the sampler, and these lines are what `--temp`, `--top-k`, `--top-p`, `--min-p` and
# `--repeat-penalty` set. They cost nothing, need no retraining, and make the difference between a bore, a storyteller and a madman.
#
# | | |
# |---|---|
# | **Afterwards you can** | say what each knob removes and in which order, write the four filters yourself, and choose settings for a reason |
# | **Time** | 60 minutes |
# | **You should know** | lab 00; what softmax is |
# | **Runs on** | any laptop, half a minute of computing, no network |
# | **In llama.cpp** | `--temp 0.8 --top-k 40 --top-p 0.95 --min-p 0.05 --repeat-penalty 1.0 --seed 1` (these are the defaults, but for the seed) |

# %%
import numpy as np

import minillama as ml
from minillama.lab import Dropdown, IntSlider, Panel, Prediction, Slider, TextBox, show
from minillama.lab.checks import lab04 as check
from minillama.lab.experiments.batch_sampling import continuations
from minillama.lab.experiments.next_token import (
    chain_table,
    last_logits,
    must_compile,
    next_token,
    softmax,
    stage_reports,
)
from minillama.lab.grading.check import attempt
from minillama.lab.grading.lab_record import measurement
from minillama.lab.plots.lab_plots import lines, scatter
from minillama.sampling import Sampling

llm = ml.load(progress=False)
PROMPT = "Once upon a time, there was a little"
llm

# %% [markdown]
# ## 1. Play first
#
# Grey is what the model says, blue is what the sampler leaves of it, and beside every lost token stands the knob that removed it. Move a
# slider and let go. **Start** writes a story with the settings as they stand; moving a slider while it writes starts it again.
#
# Try: temperature 0. Temperature 2. Temperature 2 with min-p at 0.20. top-p at 0. The other order. Another prompt, then Enter.

# %%
CONTROLS = ("temp", "top_k", "top_p", "min_p", "repeat_penalty")
ORDERS = {"llama.cpp's order: temperature last": "edskypmxt", "temperature first": "tedskypmx"}


def options(settings):
    """The panel's settings as the sampler's options, which have the names of llama.cpp's flags."""
    return {name: settings[name] for name in CONTROLS} | {"samplers": ORDERS[settings["order"]]}


def draw(settings):
    """The bars, without widgets: settings in, picture out."""
    return next_token(llm, settings["prompt"], Sampling(**options(settings)))


def write(settings):
    """The story, without widgets: settings in, pieces of text out."""
    yield settings["prompt"]
    with llm.stream(settings["prompt"], n=150, seed=settings["seed"], **options(settings)) as stream:
        for piece in stream:
            yield piece.text


panel = Panel(
    [
        TextBox("prompt", "prompt", PROMPT, "what the model continues; Enter to use it"),
        Slider("temp", "--temp", 0.0, 2.0, 0.05, 0.8, "divides the logits: low is careful, high is wild"),
        IntSlider("top_k", "--top-k", 0, 100, 40, "keep the k likeliest; 0 is off"),
        Slider("top_p", "--top-p", 0.0, 1.0, 0.01, 0.95, "keep the likeliest that make up p; 1 is off"),
        Slider("min_p", "--min-p", 0.0, 0.5, 0.01, 0.05, "keep what has at least p of the likeliest; 0 is off"),
        Slider(
            "repeat_penalty",
            "--repeat-penalty",
            1.0,
            2.0,
            0.05,
            1.0,
            "make recent tokens less likely; 1 is off",
        ),
        Dropdown(
            "order",
            "--samplers",
            tuple(ORDERS),
            "llama.cpp's order: temperature last",
            "the order of the links",
        ),
        IntSlider("seed", "--seed", 0, 99, 1, "the same seed draws the same story"),
    ],
    draw,
    write,
    compiles=lambda settings: must_compile(llm, Sampling(**options(settings))),
).show()

# %% [markdown]
# The same without sliders, for a script or a terminal: a table of the chain, link by link. (The last digits depend on
# your processor, whose kernels round in their own way.)

# %%
print(chain_table(llm, PROMPT, Sampling(temp=0.8)))

# %% [markdown]
# ## 2. Greedy, and the seed
#
# At temperature 0 the likeliest token is always taken. That is *greedy* decoding: the same text every time, whatever the seed. Above 0 the sampler
# throws a die, and the seed decides how it falls.

# %% tags=["check-output"]
for setting in (
    {"temp": 0.0, "seed": 1},
    {"temp": 0.0, "seed": 2},
    {"temp": 0.8, "seed": 1},
    {"temp": 0.8, "seed": 1},
):
    print(setting, "->", repr(str(llm.generate(PROMPT, n=16, **setting))))

# %% [markdown]
# Do not promise anyone more than that: the same seed gives the same text *on the same machine with the same version*. Another processor adds its
# floating-point numbers in another order, two tokens that are nearly equal change places, and the story goes elsewhere.
#
# ## 3. Temperature
#
# The model's last layer gives **logits** $z_i$, any real numbers. Softmax makes probabilities of them. Temperature divides the logits first:
#
# $$p_i = \frac{e^{z_i / T}}{\sum_j e^{z_j / T}}$$
#
# The differences between logits shrink for $T > 1$ (flatter) and grow for $T < 1$ (sharper). It never changes which token is the likeliest.
#
# ### Exercise 1: temperature
# Return probabilities. As in llama.cpp, `temp <= 0` means greedy: probability 1 for the largest logit.


# %% tags=["exercise"]
def temperature(logits: np.ndarray, temp: float) -> np.ndarray:
    """Probabilities of the logits at this temperature; 0 or less is greedy."""
    raise NotImplementedError


# %% tags=["solution"]
def temperature(logits: np.ndarray, temp: float) -> np.ndarray:
    """Probabilities of the logits at this temperature; 0 or less is greedy."""
    if temp <= 0:
        return (np.arange(logits.size) == np.argmax(logits)).astype(float)
    weights = np.exp((logits - logits.max()) / temp)
    return weights / weights.sum()


# %% [markdown] tags=["hint"]
# `np.exp(1000)` is infinity. Subtract the largest logit before anything else: numerator and denominator shrink by the same factor, the
# probabilities stay. For greedy, `np.argmax(logits)` is the place of the 1.

# %% tags=["check"]
check.temperature(temperature)

# %%
logits = last_logits(llm, tuple(llm.tokenizer.encode(PROMPT)))
for temp in (0.2, 0.8, 1.0, 2.0):
    best = attempt(lambda temp=temp: np.sort(temperature(logits, temp))[::-1][:4].round(3))
    print(f"T = {temp}: the four likeliest have", best)

# %% [markdown]
# ## 4. Top-k, top-p, min-p: three ways to cut the tail
#
# Each single token of the tail is unlikely. Together they are not: with 2,048 tokens there is always some probability on nonsense, a
# story has a hundred tokens, and one bad draw spoils all that follows. So the tail is cut off before the die is thrown.
#
# * **top-k** keeps the *k* likeliest. Simple, and blind: it keeps 40 where 2 make sense and 40 where 400 do.
# * **top-p** (nucleus sampling, Holtzman et al. 2019) keeps the shortest list of likeliest tokens that together have at least *p*.
# * **min-p** (Nguyen et al. 2024) keeps every token that is at least *p* times as likely as the likeliest.
#
# ### Exercise 2: top-p
# Given probabilities in the order of the vocabulary, return a mask of the same length: `True` for kept. Mind the edges: the token that
# carries the sum to *p* is kept; at least one token always stays, also for `p = 0`; `p >= 1` is off, whatever rounding does to the sum.


# %% tags=["exercise"]
def top_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Which tokens belong to the shortest list of likeliest tokens with a probability of at least p."""
    raise NotImplementedError


# %% tags=["solution"]
def top_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Which tokens belong to the shortest list of likeliest tokens with a probability of at least p."""
    if p >= 1:
        return np.ones(probs.size, dtype=bool)
    order = np.argsort(-probs, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(probs[order])[:-1]])
    inside = before < p
    inside[0] = True
    keep = np.zeros(probs.size, dtype=bool)
    keep[order[inside]] = True
    return keep


# %% [markdown] tags=["hint"]
# Sort downwards: `order = np.argsort(-probs)`. `np.cumsum(probs[order])` is the sum *including* each token; what decides whether a token is
# needed is the sum *before* it. Then carry the decision back: `keep[order[inside]] = True`.

# %% tags=["check"]
check.top_p(top_p)

# %% [markdown]
# ### Exercise 3: min-p


# %% tags=["exercise"]
def min_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Which tokens are at least p times as likely as the likeliest."""
    raise NotImplementedError


# %% tags=["solution"]
def min_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Which tokens are at least p times as likely as the likeliest."""
    return probs >= p * probs.max()


# %% [markdown] tags=["hint"]
# One line. The border moves with the model's confidence: with a likeliest token of 60 % and p = 0.05 it lies at 3 %, with one of 4 % at 0.2 %.

# %% tags=["check"]
check.min_p(min_p)

# %% [markdown]
# Yours against the engine's, on the real distribution:

# %% tags=["check-output"]
probs = softmax(logits)
off = {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
for name, mine, value in (
    ("top_p", top_p, 0.9),
    ("top_p", top_p, 0.5),
    ("min_p", min_p, 0.05),
    ("min_p", min_p, 0.01),
):
    engine = stage_reports(llm, PROMPT, Sampling(**off | {name: value}))[-1].kept
    yours = attempt(lambda: int(mine(probs, value).sum()))
    found = "as many as the engine" if yours == engine else f"the engine {engine}, you {yours}"
    print(f"{name} {value}: {found}")

# %% [markdown]
# ## 5. The order matters
#
# llama.cpp's chain is `penalties → dry → top-n-sigma → top-k → typical → top-p → min-p → xtc → temperature → draw`. Temperature comes
# **last**. Many other programs put it first. Does it matter?

# %%
TEMPS = (0.4, 0.8, 1.2, 1.6, 2.0)


def kept(order, temp):
    """How many tokens min-p 0.05 leaves, alone with the temperature."""
    return stage_reports(llm, PROMPT, Sampling(**off | {"min_p": 0.05, "temp": temp, "samplers": order}))[-1].kept


print(f"llama.cpp's order, temperature 0.8: min-p 0.05 leaves {kept('mt', 0.8)} tokens")
order_effect = Prediction(
    "04",
    "tokens left at temperature 2",
    "How many tokens does min-p 0.05 leave at temperature 2.0, in llama.cpp's order?",
    "tokens",
)
order_effect.ask()

# %% tags=["solution"]
order_effect.record(12)  # a higher temperature flattens, so surely more of them pass

# %%
show(order_effect.compare(kept("mt", 2.0), model=kept("mt", 0.8)))
# %%
table = {
    "min-p, then temperature (llama.cpp)": [kept("mt", temp) for temp in TEMPS],
    "temperature, then min-p": [kept("tm", temp) for temp in TEMPS],
}
show(lines(table, [str(temp) for temp in TEMPS], "Tokens that min-p 0.05 leaves", "temperature", "tokens left"))

# %% [markdown]
# In llama.cpp's order the filters look at the model's own probabilities, so temperature changes how the survivors share, never who survives.
# That is why `--temp 1.5 --min-p 0.1` still writes sense. In the other order a high temperature first lifts the nonsense over the border.
# When a setting from a blog post behaves oddly, ask for the order first. In llama.cpp it is a flag: `--samplers "temperature;min_p"`.
#
# ## 6. The repeat penalty, and its sign
#
# Small models love to repeat themselves. The oldest medicine makes tokens that occurred among the last `--repeat-last-n` (64), prompt included,
# less likely by a factor *r*:
#
# $$z_i \leftarrow \begin{cases} z_i / r & z_i > 0 \\ z_i \cdot r & z_i \le 0 \end{cases}$$
#
# The two cases are there because logits have signs: dividing −4 by 1.3 gives −3.1, which is *more* likely. The first published version
# had only the division.
#
# ### Exercise 4: repeat penalty
# Return new logits, leave the ones you were given alone. A token is penalised once, however often it occurred.


# %% tags=["exercise"]
def repeat_penalty(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    """Logits in which the recent tokens are less likely by the factor `penalty`."""
    raise NotImplementedError


# %% tags=["solution"]
def repeat_penalty(logits: np.ndarray, recent: list[int], penalty: float) -> np.ndarray:
    """Logits in which the recent tokens are less likely by the factor `penalty`."""
    out = logits.copy()
    seen = sorted(set(recent))
    out[seen] = np.where(out[seen] > 0, out[seen] / penalty, out[seen] * penalty)
    return out


# %% [markdown] tags=["hint"]
# `seen = sorted(set(recent))` names each token once, and `out[seen]` takes all of them at a time. `np.where(condition, a, b)` chooses
# for each.

# %% tags=["check"]
check.repeat_penalty(repeat_penalty)

# %%
for penalty in (1.0, 1.3, 2.0):
    text = str(llm.generate(PROMPT, n=60, temp=0.0, repeat_penalty=penalty))
    print(f"--repeat-penalty {penalty}: {PROMPT}{text}\n")

# %% [markdown]
# Read the last one aloud. The penalty knows nothing of grammar: "the", "was" and the full stop are repeated tokens too. That is why
# llama.cpp's default is 1.0, off, and why web pages that tell you 1.1 are from 2023. Its successor, `--dry-multiplier`, penalises
# repeated *sequences* instead.
#
# ## 7. Two hundred samples a setting
#
# One story proves nothing. So we let the model continue the prompt 200 times for every setting and measure two things:
#
# * **likelihood**: the (geometric) mean probability that the model itself gives the tokens that were drawn. High is what the model finds normal.
# * **diversity**: distinct-2, the share of different pairs of neighbouring tokens. High is varied.
#
# Before you run it: greedy decoding is somewhere in the picture. Where?

# %%
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
SETTINGS = {"greedy": {"temp": 0.0}}
SETTINGS |= {f"T {temp} no filter": OFF | {"temp": temp} for temp in (0.4, 0.8, 1.2, 1.6)}
SETTINGS |= {f"T {temp} defaults": {"temp": temp} for temp in (0.4, 0.8, 1.2, 1.6)}
samples = {
    name: continuations(llm, PROMPT, Sampling(**setting), count=200, length=20)
    for name, setting in SETTINGS.items()
}
points = {name: (many.likelihood, many.distinct(2)) for name, many in samples.items()}
joined = [[name for name in SETTINGS if name.endswith(kind)] for kind in ("no filter", "defaults")]
show(
    scatter(
        points,
        "200 continuations a setting",
        "likelihood: mean probability of a token",
        "diversity: distinct-2",
        joined=joined,
    )
)
# %%
for name in ("greedy", "T 0.8 defaults", "T 1.6 defaults", "T 1.6 no filter"):
    measurement("04", f"distinct-2, {name}", points[name][1], "share")
    print(f"{name}:")
    for text in samples[name].texts(llm)[:3]:
        print("   ", PROMPT[-15:] + text.replace("\n", " "))

# %% [markdown]
# There is no best point, only a curve along which you trade one for the other. And here is an honest surprise: with and without filters it is
# nearly the *same* curve. Cutting the tail buys what a lower temperature buys. The difference is how far one knob can carry you: without
# filters a temperature of 1.6 falls off the end, into word salad; with llama.cpp's defaults it arrives about where 0.8 stands without them. The
# filters make the temperature a knob that is safe to turn.
#
# Greedy sits alone in its corner: likeliest, and one single story two hundred times. That stays true for large models: the text
# that a model finds most likely is not the best text, and people do not write that way either (Holtzman et al. 2019, *The curious case of neural
# text degeneration*).

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * The model gives a distribution, the sampler takes a token. All knobs of this lab act between the two.
# * Filters decide **who** may be drawn, temperature decides **how** the survivors share. In llama.cpp in this order.
# * Edges are where samplers differ: at least one token, the one that crosses *p*, `p = 1`, ties, temperature 0.
# * Judge a setting by many samples and two numbers, not by one story.
#
# | knob | llama.cpp's flag | default | off | acts on |
# |---|---|---|---|---|
# | temperature | `--temp` | 0.80 | 1 (0 is greedy) | how the survivors share |
# | top-k | `--top-k` | 40 | 0 | number of survivors |
# | top-p | `--top-p` | 0.95 | 1 | survivors' total probability |
# | min-p | `--min-p` | 0.05 | 0 | distance from the likeliest |
# | repeat penalty | `--repeat-penalty`, `--repeat-last-n` | 1.00, 64 | 1 | tokens that just occurred |
# | order | `--samplers`, `--sampler-seq edskypmxt` | as in section 5 | | |
# | seed | `--seed` | −1, random | | how the die falls |
#
# The same story on the command line: `minillama completion -p "Once upon a time" -n 100 --temp 0.8 --seed 1`, and with llama.cpp:
# `llama-completion -no-cnv -m storyteller-q8_0.gguf -p "Once upon a time" -n 100 --temp 0.8 --seed 1`. The settings agree; the dice are
# different dice, so the same seed tells another story there.
#
# ## When you get an error
#
# * The panel says *failed* and one line: that line is the error. Move a slider back, it works on.
# * The panel says *compiling* for some seconds: a new combination of filters is compiled once, after that it is instant.
# * `OptionError: top_p is 1.2; ...`: the option, its value and its range. All options are checked before the first token.
# * Sliders do nothing: the kernel is busy with a cell. They wait until it ends.
