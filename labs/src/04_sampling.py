# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 04 · Sampling: from probabilities to a story
#
# A language model gives a probability to every token of its vocabulary: how likely the token is to come next. A few
# lines outside of the model, the sampler, choose the token. `--temp`, `--top-k`, `--top-p`, `--min-p` and
# `--repeat-penalty` set the sampler. These options cost nothing and need no retraining, and they decide whether the
# text is dull, lively or nonsense.
#
# | | |
# |---|---|
# | **Afterwards you can** | say what each option removes and in which order, write four samplers yourself, and choose settings for a reason |
# | **Time** | 60 minutes |
# | **You should know** | lab 00; what softmax is |
# | **Runs on** | any laptop, half a minute of computing, no network |
# | **In llama.cpp** | `--temp 0.8 --top-k 40 --top-p 0.95 --min-p 0.05 --repeat-penalty 1.0 --seed 1` (these are the defaults, except for the seed) |

# %%
import numpy as np

from minillama.lab import Dropdown, IntSlider, Panel, Prediction, Slider, TextBox, collect, running, show
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
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, scaled
from minillama.lab.plots.lab_plots import lines, scatter
from minillama.sampling import Sampling

MODEL = None  # or the path of your own GGUF file
llm = lab_model(MODEL)
PROMPT = "Once upon a time, there was a little"
llm

# %% [markdown]
# ## 1. Try it first
#
# Grey bars are the model's probabilities, blue bars those after the sampler. Each removed token has a label with the
# option that removed it. Move a slider and release it. **Start** writes a story with the present settings; if you move
# a slider meanwhile, the story starts again.
#
# Try: temperature 0. Temperature 2. Temperature 2 with min-p at 0.20. top-p at 0. The other order. Another prompt, then
# Enter.

# %%
CONTROLS = ("temp", "top_k", "top_p", "min_p", "repeat_penalty")
ORDERS = {"llama.cpp's order: temperature last": "edskypmxt", "temperature first": "tedskypmx"}


def options(settings):
    """The panel's settings as the sampler's options, which have the names of llama.cpp's flags."""
    return {name: settings[name] for name in CONTROLS} | {"samplers": ORDERS[settings["order"]]}


def draw(settings):
    """The bars without widgets: settings in, figure out."""
    return next_token(llm, settings["prompt"], Sampling(**options(settings)))


def write(settings):
    """The story, without widgets: settings in, pieces of text out."""
    yield settings["prompt"]
    with llm.stream(
        settings["prompt"], n=150, seed=settings["seed"], **options(settings)
    ) as stream:
        for piece in stream:
            yield piece.text


# %% tags=["panel"]
panel = Panel(
    [
        TextBox("prompt", "prompt", PROMPT, "what the model continues; Enter to use it"),
        Slider(
            "temp",
            "--temp",
            0.0,
            2.0,
            0.05,
            0.8,
            "divides the logits: low is careful, high is wild",
        ),
        IntSlider("top_k", "--top-k", 0, 100, 40, "keep the k likeliest; 0 is off"),
        Slider(
            "top_p", "--top-p", 0.0, 1.0, 0.01, 0.95, "keep the likeliest that make up p; 1 is off"
        ),
        Slider(
            "min_p",
            "--min-p",
            0.0,
            0.5,
            0.01,
            0.05,
            "keep what has at least p of the likeliest; 0 is off",
        ),
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
            "the order of the stages",
        ),
        IntSlider("seed", "--seed", 0, 99, 1, "the same seed draws the same story"),
    ],
    draw,
    write,
    compiles=lambda settings: must_compile(llm, Sampling(**options(settings))),
).show()

# %% [markdown]
# The same without sliders, for a script or a terminal: a table of the chain, stage by stage. (The last digits depend on
# your processor, because its kernels round differently.)

# %%
print(chain_table(llm, PROMPT, Sampling(temp=0.8)))

# %% [markdown]
# ## 2. Greedy, and the seed
#
# At temperature 0 the sampler always takes the likeliest token. This is *greedy* decoding: the same text for every
# seed. Above 0 the sampler draws a random token, and the seed fixes the random numbers.

# %% tags=["check-output"]
FOUR = (
    {"temp": 0.0, "seed": 1},
    {"temp": 0.0, "seed": 2},
    {"temp": 0.8, "seed": 1},
    {"temp": 0.8, "seed": 1},
)
with running("short texts; the first compiles", steps=len(FOUR)) as step:
    for setting in FOUR:
        print(setting, "->", repr(str(llm.generate(PROMPT, n=16, **setting))))
        step()

# %% [markdown]
# The random numbers are those of llama.cpp: one generator, `mt19937`, started with the seed, and one number for each
# token. The sampler adds up the probabilities, likeliest first, and takes the token at which the sum reaches the number.
# Still, another processor or program rounds differently. Where a number falls between two sums that differ in the last
# digits only, or two tokens of almost equal probability change order, the story continues differently.
#
# ## 3. Temperature
#
# The model's last layer gives **logits** $z_i$, any real numbers. Softmax turns them into probabilities. The
# temperature divides the logits first:
#
# $$p_i = \frac{e^{z_i / T}}{\sum_j e^{z_j / T}}$$
#
# The differences between logits shrink for $T > 1$ (flatter) and grow for $T < 1$ (sharper). The likeliest token always
# stays the same.
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
# `np.exp(1000)` is infinity. Subtract the largest logit before anything else: numerator and denominator shrink by the
# same factor, the probabilities stay. For greedy, `np.argmax(logits)` is the index of the 1.

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
# Each single token of the tail is unlikely, but together they are not: among thousands of tokens there is always some
# probability on nonsense, a story has a hundred tokens, and one bad token spoils all that follow. So the sampler
# removes the tail before it draws.
#
# * **top-k** keeps the *k* likeliest. It is simple, but it keeps 40 tokens where 2 make sense and where 400 do.
# * **top-p** (nucleus sampling, Holtzman et al. 2019) keeps the shortest list of likeliest tokens that together have at
#   least *p*.
# * **min-p** (Nguyen et al. 2024) keeps every token that is at least *p* times as likely as the likeliest.
#
# ### Exercise 2: top-p
# Given probabilities in the order of the vocabulary, return a mask of the same length: `True` for kept. Handle the edge
# cases: the token that brings the sum to *p* is kept; at least one token always stays, also for `p = 0`; `p >= 1`
# switches the filter off, even if rounding leaves the sum below 1.


# %% tags=["exercise"]
def top_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Mask of the fewest likeliest tokens with a total probability of at least p."""
    raise NotImplementedError


# %% tags=["solution"]
def top_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Mask of the fewest likeliest tokens with a total probability of at least p."""
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
# Sort in descending order: `order = np.argsort(-probs)`. `np.cumsum(probs[order])` is the sum *including* each token. A
# token is needed if the sum *before* it is below p. Then map the result back: `keep[order[inside]] = True`.

# %% tags=["check"]
check.top_p(top_p)

# %% [markdown]
# ### Exercise 3: min-p


# %% tags=["exercise"]
def min_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Mask of the tokens that are at least p times as likely as the likeliest."""
    raise NotImplementedError


# %% tags=["solution"]
def min_p(probs: np.ndarray, p: float) -> np.ndarray:
    """Mask of the tokens that are at least p times as likely as the likeliest."""
    return probs >= p * probs.max()


# %% [markdown] tags=["hint"]
# One line. The threshold depends on the model's confidence: with p = 0.05 it is 3 % for a likeliest token of 60 %, and
# 0.2 % for one of 4 %.

# %% tags=["check"]
check.min_p(min_p)

# %% [markdown]
# Your filters and the engine's, on the real distribution:

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
# llama.cpp's chain is `penalties → dry → top-n-sigma → top-k → typical → top-p → min-p → xtc → temperature → draw`.
# Temperature comes **last**. Many other programs put it first. Does it matter?

# %%
TEMPS = (0.4, 0.8, 1.2, 1.6, 2.0)


def kept(order, temp):
    """Number of tokens that min-p 0.05 leaves, with only the temperature."""
    return stage_reports(
        llm, PROMPT, Sampling(**off | {"min_p": 0.05, "temp": temp, "samplers": order})
    )[-1].kept


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
show(
    lines(
        table,
        [str(temp) for temp in TEMPS],
        "Tokens that min-p 0.05 leaves",
        "temperature",
        "tokens left",
    )
)

# %% [markdown]
# In llama.cpp's order the filters use the model's own probabilities. So the temperature changes the probabilities of
# the kept tokens, but not which tokens are kept. Therefore `--temp 1.5 --min-p 0.1` still writes sense. In the other
# order a high temperature first lifts nonsense over the threshold. If a setting from a blog post gives strange results,
# check the order first. In llama.cpp it is a flag: `--samplers "temperature;min_p"`.
#
# ## 6. The repeat penalty, and its sign
#
# Small models often repeat themselves. The oldest remedy makes tokens less likely by a factor *r* if they occurred
# among the last `--repeat-last-n` (64) tokens, prompt included:
#
# $$z_i \leftarrow \begin{cases} z_i / r & z_i > 0 \\ z_i \cdot r & z_i \le 0 \end{cases}$$
#
# There are two cases because logits have signs: −4 divided by 1.3 is −3.1, which is *more* likely. The first published
# version had only the division.
#
# ### Exercise 4: repeat penalty
# Return new logits and do not change the input. Penalise a token once, even if it occurred several times.


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
# `seen = sorted(set(recent))` lists each token once, and `out[seen]` selects all of them. `np.where(condition, a, b)`
# chooses for each.

# %% tags=["check"]
check.repeat_penalty(repeat_penalty)

# %%
with running("texts; a penalty compiles another program", steps=3) as step:
    for penalty in (1.0, 1.3, 2.0):
        text = str(llm.generate(PROMPT, n=60, temp=0.0, repeat_penalty=penalty))
        print(f"--repeat-penalty {penalty}: {PROMPT}{text}\n")
        step()

# %% [markdown]
# Read the last one aloud. The penalty ignores grammar: "the", "was" and the full stop are repeated tokens too.
# Therefore llama.cpp's default is 1.0, off; web pages that recommend 1.1 are from 2023. Its successor,
# `--dry-multiplier`, penalises repeated *sequences* instead.
#
# ## 7. Two hundred samples per setting
#
# One story proves nothing. So the model continues the prompt 200 times for every setting, and we measure two things:
#
# * **likelihood**: the (geometric) mean probability that the model itself gives to the drawn tokens. A high value means
#   text that is normal for the model.
# * **diversity**: distinct-2, the share of different pairs of neighbouring tokens. A high value means varied text.
#
# Before you run it: where in the figure will greedy decoding be?

# %%
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
SETTINGS = {"greedy": {"temp": 0.0}}
SETTINGS |= {f"T {temp} no filter": OFF | {"temp": temp} for temp in (0.4, 0.8, 1.2, 1.6)}
SETTINGS |= {f"T {temp} defaults": {"temp": temp} for temp in (0.4, 0.8, 1.2, 1.6)}
COUNT = scaled(200, llm, tokens=9 * 20, rows=2, seconds=40, least=4)  # 200 of a small model
work = (
    continuations(llm, PROMPT, Sampling(**setting), count=COUNT, length=20)
    for setting in SETTINGS.values()
)
samples = dict(zip(SETTINGS, collect(work, "settings", len(SETTINGS)), strict=True))
points = {name: (many.likelihood, many.distinct(2)) for name, many in samples.items()}
joined = [[name for name in SETTINGS if name.endswith(kind)] for kind in ("no filter", "defaults")]
show(
    scatter(
        points,
        f"{COUNT} continuations a setting",
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
# There is no best point, only a curve on which you trade one for the other. The surprise: with and without filters it
# is almost the *same* curve. To remove the tail has the effect of a lower temperature. The difference is the usable
# range: without filters a temperature of 1.6 gives random words; with llama.cpp's defaults it is about where 0.8 is
# without them. The filters make a high temperature safe.
#
# Greedy is alone in its corner: the most likely text, and one single story two hundred times. This is also true for
# large models: the most likely text is not the best text, and people do not write that way either (Holtzman et al.
# 2019, *The curious case of neural text degeneration*).

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * The model gives a distribution, the sampler takes a token. All options of this lab act between the two.
# * Filters decide **which** tokens can be drawn; the temperature decides **how** probable each of them is. llama.cpp
#   applies them in this order.
# * Samplers differ in edge cases: at least one token, the token that crosses *p*, `p = 1`, ties, temperature 0.
# * Judge a setting by many samples and two numbers, not by one story.
#
# | option | llama.cpp's flag | default | off | acts on |
# |---|---|---|---|---|
# | temperature | `--temp` | 0.80 | 1 (0 is greedy) | probabilities of the kept tokens |
# | top-k | `--top-k` | 40 | 0 | number of kept tokens |
# | top-p | `--top-p` | 0.95 | 1 | total probability of the kept tokens |
# | min-p | `--min-p` | 0.05 | 0 | distance from the likeliest |
# | repeat penalty | `--repeat-penalty`, `--repeat-last-n` | 1.00, 64 | 1 | tokens that just occurred |
# | order | `--samplers`, `--sampler-seq edskypmxt` | as in section 5 | | |
# | seed | `--seed` | −1, random | | the random numbers |
#
# The same story on the command line: `minillama completion -p "Once upon a time" -n 100 --temp 0.8 --seed 1`, and with
# llama.cpp: `llama-completion -no-cnv -m storyteller-q8_0.gguf -p "Once upon a time" -n 100 --temp 0.8 --seed 1`. The
# settings and the random numbers are the same, so both stories begin alike. They part where rounding decides, early
# with the 8-bit weights of this file. With F32 weights and caches they are the same to the end.
#
# ## When you get an error
#
# * The panel says *failed* and one line: this line is the error. Move the slider back, and the panel continues.
# * The panel says *compiling* for some seconds: a new combination of filters is compiled once; after that it is
#   instant.
# * `OptionError: top_p is 1.2; ...`: the option, its value and its range. All options are checked before the first
#   token.
# * Sliders do nothing: the kernel runs a cell. They work again after its end.
