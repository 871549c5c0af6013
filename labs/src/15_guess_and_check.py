# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 15 · Guess and check
#
# Decoding for one reader waits for memory: all weights are read for a single token (lab 01). If somebody *guesses* the next
# tokens, the model can check all of them in one pass, with the same weights read once. Right guesses are then tokens at
# almost no price, and wrong ones are thrown away. This is *speculative decoding*. It changes no word of the text, and
# whether it makes the text faster is arithmetic: this lab writes it down, measures it, and finds where the gain becomes
# a loss.
#
# | | |
# |---|---|
# | **Afterwards you can** | write a guesser and a sampler that keeps the distribution, predict the speed-up from acceptance and costs, and choose the length of a guess for one text and for a batch |
# | **Time** | 75 minutes |
# | **You should know** | lab 01 (roofline), lab 04 (sampling), lab 05 (passes); lab 13 (batches) for the last section |
# | **Runs on** | any laptop, about a minute of computing, no network |
# | **In llama.cpp** | `llama-server -md draft.gguf --draft-max 3`, `--spec-type ngram-simple`, `llama-speculative`, `llama-lookup` |

# %%
import numpy as np

from minillama.lab import IntSlider, Panel, Prediction, Slider, collect, running, show
from minillama.lab.checks import lab15 as check
from minillama.lab.experiments.quantised_storytellers import (
    heldout_text,
    load_quantised,
    quantised,
)
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, scaled
from minillama.lab.plots.serving_plots import two_sided
from minillama.lab.speculation.batch_gains import batch_gains
from minillama.lab.speculation.gain_table import batch_table, dots, gains_table
from minillama.lab.speculation.guessed_text import follow
from minillama.lab.speculation.heavy_storyteller import load_heavy
from minillama.lab.speculation.logged_passes import measured_gains
from minillama.lab.speculation.pass_costs import pass_costs
from minillama.lab.speculation.rejection_sampling import (
    FAULTY_SAMPLERS,
    chi_square_of,
    output_distribution,
    overlap,
)
from minillama.lab.speculation.speculation_verdict import cost_sentence
from minillama.lab.speculation.speedup_figures import batch_curve, speedup_curves

MODEL = None  # or the path of your own GGUF file
DRAFT = None  # or a small GGUF file of the same vocabulary, to guess for it
storyteller = lab_model(MODEL)
if MODEL is None:
    draft = load_quantised("Q4_0")
    heavy = load_heavy(draft="Q4_0")  # 76 MB, and the storyteller in 4 bits (1.4 MB) for guesses
else:
    draft = lab_model(DRAFT or quantised("Q4_0", MODEL))
    heavy = lab_model(MODEL, model_draft=draft.path)

# %% [markdown]
# The large model of this lab is the storyteller with ballast: sixty times as many neurons in each feed-forward layer, and the
# added ones have outputs of weight zero (`minillama/lab/speculation/heavy_storyteller.py`). So it writes the storyteller's
# words, and takes the time of a model of 76 MB. Its draft model is the storyteller in Q4_0. The pair is as in practice: the
# small model is quick, and nearly as clever.
#
# (With a `MODEL` of your own, that is the large one, and `DRAFT` guesses for it. Without a `DRAFT` the model guesses for itself,
# in 4 bits: nearly always right, and too slow to pay.)

# %% tags=["check-output"]
LINE = "Once upon a time, there was a little fox."
with running("both models compile their first programs", seconds=8):
    light = storyteller.generate(LINE, n=24, temp=0.0)
    same = heavy.generate(LINE, n=24, temp=0.0, draft_max=0)
if MODEL is None:
    print(f"the heavy storyteller writes the storyteller's text: {light.text == same.text}")

# %% [markdown]
# ## 1. The price of a pass over guesses
#
# A pass over a token and *k* guesses has *k + 1* rows. It reads the weights once, and multiplies them *k + 1* times.

# %%
eight = Prediction(
    "15",
    "pass of 8 tokens over 1",
    "A pass of 8 tokens: how many times longer than a pass of 1 token?",
    "times",
)
eight.ask()

# %% tags=["solution"]
eight.record(4)  # "half of it is arithmetic"

# %%
costs = pass_costs(heavy, (1, 2, 4, 8, 16, 32))
show(eight.compare(costs.ratio(8), model=1.0))
# %%
curves = {"one pass": [costs.ratio(rows) for rows in costs.rows], "one after the other": costs.rows}
title = "Time of a pass by its tokens"
show(two_sided(costs.rows, curves, title, "tokens", "times one token", logarithmic="xy"))
for rows in costs.rows[1:]:
    print(cost_sentence(rows, costs.ratios(rows)))
print(f"a token of the draft model takes {costs.draft:.2f} of a pass of the heavy one")

# %% [markdown]
# *Model says* 1: the roofline's memory term alone. The rest are reasons that you can look up: other kernels for few rows than
# for one (`minillama/kernels/cpu/skinny_gemm/`), attention, the output head, and sampling, which each row has for itself.
#
# The engine pads a pass to a power of two, so that there are few programs to compile: a pass of 5 tokens takes the time of
# one of 8. The lengths that waste nothing are 1, 3, 7 and 15 guesses.
#
# ## 2. A guesser without a model
#
# Text repeats itself: names, code, quotations. *Prompt lookup* guesses that what followed the last words before follows them
# again. It costs nothing.
#
# ### Exercise 1: guess by lookup
# Return a guess of `k` tokens, as a list:
#
# * find the last `n` tokens earlier in `tokens`. If they are there several times, the **latest** place before the end counts;
# * if they are not there, try the last `n - 1`, and so on down to the last one. If even that is new, return `[]`;
# * the guess is what followed there. Where it reaches the end of the text, it goes on with itself: after `a b a b` comes
#   `a b a b a b ...`.


# %% tags=["exercise"]
def lookup(tokens, n, k):
    """The k tokens that followed the last n, n - 1, ... or 1 tokens before; [] if they are new."""
    raise NotImplementedError


# %% tags=["solution"]
def lookup(tokens, n, k):
    """The k tokens that followed the last n, n - 1, ... or 1 tokens before; [] if they are new."""
    for size in range(min(n, len(tokens) - 1), 0, -1):
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == tokens[-size:]:
                longer = list(tokens)
                for place in range(k):
                    longer.append(longer[start + size + place])
                return longer[len(tokens) :]
    return []


# %% [markdown] tags=["hint"]
# Two loops: sizes from `n` down, and places from the latest, `len(tokens) - size - 1`, down to 0. For a guess that goes on with
# itself append its tokens to a copy of the text, one by one, and read each from that copy.

# %% tags=["check"]
check.lookup(lookup)

# %% [markdown]
# How often would it be right? Here a model writes exactly these texts, token by token, and the guesser is asked before each
# pass. `accepted` counts the guesses that were compared: those up to the first wrong one.

# %% tags=["check-output"]
texts = {
    "a story": heldout_text()[:1500],
    "a table": "\n".join(f"{a} times {b} is {a * b}" for a in range(2, 6) for b in range(1, 10)),
    "a log": "\n".join(f"the fox asked for page {17 * n % 23}: it was found" for n in range(36)),
    "a refrain": "The wheels of the bus go round and round. " * 30,
}
for name, text in texts.items():
    found = attempt(follow, lookup, storyteller.tokenizer.encode(text), 4, 7)
    if not isinstance(found, str):
        found = f"{found[0]:.0%} accepted, {found[1]:.1f} tokens a pass"
    print(f"{name:9}: {found}")

# %% [markdown]
# ## 3. The law of the gain
#
# Let each guess be right with probability *a*, if all guesses before it were. The first wrong guess ends the pass, and the
# model's own token takes its place; if all are right, the model adds one more.
#
# ### Exercise 2: tokens of a pass
# How many tokens does a pass over `k` guesses write on average? Your function must also be right for `a = 1`.


# %% tags=["exercise"]
def expected_tokens(a, k):
    """Mean number of tokens that a pass over k guesses writes."""
    raise NotImplementedError


# %% tags=["solution"]
def expected_tokens(a, k):
    """Mean number of tokens that a pass over k guesses writes."""
    return sum(a**place for place in range(k + 1))


# %% [markdown] tags=["hint"]
# The first guess is written with probability a, the second with a², ... and one token of the model is always written. The sum
# is $(1 - a^{k+1}) / (1 - a)$ for a below 1.

# %% tags=["check"]
check.expected_tokens(expected_tokens)

# %% [markdown]
# ### Exercise 3: the speed-up
# The unit of time is a plain pass of one token. A pass over the guesses takes `cost` of them, and the draft model needs
# `draft` for each of its guesses, one after the other. How many times faster is it than plain decoding?


# %% tags=["exercise"]
def speedup(a, k, draft, cost):
    """Tokens a second with guesses over those without."""
    raise NotImplementedError


# %% tags=["solution"]
def speedup(a, k, draft, cost):
    """Tokens a second with guesses over those without."""
    return expected_tokens(a, k) / (cost + k * draft)


# %% [markdown] tags=["hint"]
# Plain decoding writes one token in one unit of time. With guesses: `expected_tokens(a, k)` tokens in the time of a pass and of
# k guesses.

# %% tags=["check"]
check.speedup(speedup)

# %% [markdown]
# Now the engine. At temperature 0 the draft model guesses 1, 3 or 7 tokens; at temperature 1 it guesses 3. Then lookup, on the
# same story and on a text that turns in a circle. Every session notes its passes.

# %%
three = Prediction(
    "15",
    "3 guesses of the draft model",
    f"A pass of 4 tokens costs {costs.cost(4):.2f}, a guess {costs.draft:.2f}. "
    "The draft model guesses 3 tokens, temperature 0: how many times faster?",
    "times",
)
three.ask()

# %% tags=["solution"]
three.record(2)

# %%
N = scaled(64, heavy, tokens=48, seconds=90, least=16)  # tokens; 64 of a small model
GREEDY = {"n": N, "temp": 0.0}
DRAWN = {"n": N, "temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 15}
SENTENCE = " The carpet off the carpet and pushed the carpet off."
CIRCLE = "Tick, tock. " * 20 + " give you a warm scale in the car." + SENTENCE + SENTENCE[:30]
lengths = {"draft, 1": 1, "draft, 3": 3, "draft, 7": 7, "draft, 3, temp 1": 3}
of_lookup = {"lookup": True, "draft_max": 7}
choices = {f"draft, {k}": {"draft_max": k} for k in (1, 3, 7)}
gains = {
    **measured_gains(heavy, LINE, {**choices, "lookup, a story": of_lookup}, **GREEDY),
    **measured_gains(heavy, LINE, {"draft, 3, temp 1": {"draft_max": 3}}, **DRAWN),
    **measured_gains(heavy, CIRCLE, {"lookup, a circle": of_lookup}, **GREEDY),
}
right = gains["draft, 3"].run.acceptance
law = attempt(speedup, right, 3, costs.draft, costs.cost(4))
show(three.compare(gains["draft, 3"].ratio, model=law if isinstance(law, float) else None))
for name, gain in gains.items():
    measurement("15", f"speed-up, {name}", gain.ratio, "times")

# %%
print(gains_table(gains, lengths, costs))
# %%
title = "Speed-up by length of the guess: law and measurement"
show(speedup_curves((0.3, 0.5, 0.7, 0.9, 1.0), costs.draft, costs.cost, dots(gains), title))

# %% [markdown]
# Read the figure: each curve has its peaks at 1, 3, 7 and 15 guesses, because passes are padded. Right of its best length a
# curve falls: late guesses are rarely right, and cost as much as early ones.
#
# Two predictions are in the table. *Law* is yours, with one acceptance for all places. *Counted* takes the passes as they
# were. If only the law is wrong, acceptance is not the same at each place: a hard word is hard for both models, and easy
# places come in rows. If both are wrong in the same direction, the costs were other ones while the texts were written. Lookup
# has no law here, because the engine adapts the length of its guesses: after a right one they double, after a wrong one they
# are a single token.
#
# Where would another draft model be on this map? Move the sliders. The costs of passes are those of your machine; beyond 32
# rows they go on as a straight line.


# %%
def gain_by_length(settings):
    """The curve without widgets: settings in, figure out."""
    chosen = (settings[name] for name in ("acceptance", "guesses", "batch", "draft"))
    return batch_curve(*chosen, costs.cost, "Speed-up by length of the guess")


# %% tags=["panel"]
panel = Panel(
    [
        Slider("acceptance", "acceptance", 0.0, 1.0, 0.05, 0.7, "if those before are right"),
        IntSlider("guesses", "tokens of a guess", 0, 15, 3, "k"),
        Slider("draft", "cost of a guess", 0.0, 0.5, 0.01, 0.1, "in plain passes"),
        IntSlider("batch", "texts", 1, 16, 1, "in the same pass"),
    ],
    gain_by_length,
).show()

# %% [markdown]
# ## 4. The text does not change
#
# At temperature 0 a guess is right if it is the model's likeliest token. With draws there are two ways:
#
# * **Rejection** (Leviathan et al., Chen et al., 2023). The draft model *draws* a guess from its own distribution *q*. It is kept
#   with a certain probability, and otherwise another token is drawn in its place, so that the result has exactly the model's
#   distribution *p*.
# * **The same sample** (llama.cpp, minillama). The draft model takes its likeliest token. The model draws its own token with its
#   own random numbers; the guess is right if it is that token.
#
# ### Exercise 4: the distribution stays the same
# `p` and `q` are arrays of probabilities over the same tokens, and `guess` was drawn from `q`. Return two values: the
# probability with which the guess is kept, and the distribution (an array, sum 1) from which its replacement is drawn if it
# is not. All tokens must come out with the probabilities of `p`, and as many guesses as possible must be kept. Where nothing
# is ever replaced, return `p` as the distribution. The check draws nothing: it adds up all cases.


# %% tags=["exercise"]
def verify(p, q, guess):
    """(probability that the guess is kept, distribution of its replacement)."""
    raise NotImplementedError


# %% tags=["solution"]
def verify(p, q, guess):
    """(probability that the guess is kept, distribution of its replacement)."""
    keep = min(1.0, p[guess] / q[guess])
    left = np.maximum(p - q, 0)
    return keep, left / left.sum() if left.sum() > 0 else p


# %% [markdown] tags=["hint"]
# Token x is guessed with probability q(x) and may be written with p(x). Where q is too large, keep the share p / q. Where q is
# too small, p - q is missing: this is what replacements must add. Scale it to a sum of 1.

# %% tags=["check"]
check.verify(verify)

# %% [markdown]
# Twenty thousand draws from a vocabulary of eight tokens, and Pearson's chi-square test against *p*. Next to your sampler are
# three others: one that draws from *p* directly, one that keeps every guess, and one that draws the replacement from *p*.

# %% tags=["check-output"]
p = np.array([0.30, 0.22, 0.15, 0.12, 0.09, 0.06, 0.04, 0.02])
q = np.array([0.18, 0.30, 0.10, 0.16, 0.05, 0.11, 0.04, 0.06])
samplers = {
    "plain draws from p": lambda p, q, guess: (0.0, p),
    "your verify": verify,
    **FAULTY_SAMPLERS,
}
for name, sampler in samplers.items():
    print(f"{name:18}: {chi_square_of(sampler, p, q, count=20_000, seed=1)}")
exact = attempt(output_distribution, verify, p, q)
if not isinstance(exact, str):
    print(f"your verify keeps {exact[1]:.3f} of the guesses")
    print(f"the sum of min(p, q) is {np.minimum(p, q).sum():.3f}")

# %% [markdown]
# The share of guesses that is kept is the overlap of the two distributions, $a = \sum_x \min(p(x), q(x))$. A test of draws can
# only say that it found no difference; the enumeration of the check is a proof for its inputs.
#
# How much do the two ways accept? The model and its draft, on held-out stories at temperature 1:

# %%
ids = storyteller.tokenizer.encode(heldout_text())[:400]
pair = (storyteller, draft)
shared = overlap(*collect((llm.logits(ids) for llm in pair), "logits", len(pair)))
print(f"rejection, guesses drawn from q:       {shared.rejection:.0%} accepted")
print(f"same sample, guess = likeliest of q:   {shared.likeliest:.0%} accepted")
print(f"both take the likeliest (temperature 0): {shared.greedy:.0%} accepted")

# %% [markdown]
# Rejection keeps more guesses when tokens are drawn. The other way keeps a stronger promise: the *same seed gives the same
# text*, with and without guesses, because the model's random numbers are used as without guesses, one for each written token.
# Rejection uses other random numbers: the same distribution, but another text. Here is the promise, for one text and in a
# batch, where the draft model guesses for each slot:

# %%
engine = heavy.batch_engine(slots=8, ctx_size=128, draft_max=3)
SETTINGS = ({"temp": 0.0}, {"temp": 0.8, "seed": 5}, {"temp": 1.5, "seed": 6})
written = []
with running("settings", steps=len(SETTINGS)) as step:
    for options in SETTINGS:
        ways = {
            "plain": heavy.generate(LINE, n=40, draft_max=0, **options),
            "draft model": heavy.generate(LINE, n=40, draft_max=3, **options),
            "lookup and draft model": heavy.generate(LINE, n=40, lookup=True, **options),
            "draft model in a batch": engine.submit(LINE, n=40, **options).finish(),
        }
        written.append({name: done.tokens for name, done in ways.items()})
        step()

# %% tags=["check-output"]
for options, ways in zip(SETTINGS, written, strict=True):
    equal = {name: tokens == ways["plain"] for name, tokens in ways.items() if name != "plain"}
    print(f"the same text at temperature {options['temp']}:", equal)

# %% [markdown]
# ## 5. From gain to loss: the batch
#
# Eight readers already fill a pass with eight rows (lab 13). Their guesses make it 32: the arithmetic that was idle is not
# idle any more. With *B* texts the price of guesses is a pass of *B (k + 1)* rows against one of *B* rows.
#
# ### Exercise 5: the best guess in a batch
# `seconds(rows)` is the time of a pass, `draft` the time in which the draft model guesses one more token for *all* `batch`
# texts. A pass has at most 32 rows. Return the `k` with most tokens a second, 0 if no guess pays; of equal ones the smallest.


# %% tags=["exercise"]
def best_k(a, batch, draft, seconds):
    """Tokens of a guess that give most tokens a second; 0: no guesses."""
    raise NotImplementedError


# %% tags=["solution"]
def best_k(a, batch, draft, seconds):
    """Tokens of a guess that give most tokens a second; 0: no guesses."""

    def rate(k):
        return expected_tokens(a, k) / (seconds(batch * (k + 1)) + k * draft)

    return max((k for k in range(32) if k == 0 or batch * (k + 1) <= 32), key=rate)


# %% [markdown] tags=["hint"]
# For each k with `batch * (k + 1) <= 32`: tokens of a text, over the seconds of the pass and of k guesses. `max(...,
# key=rate)` returns the first of equal ones.

# %% tags=["check"]
check.best_k(best_k)

# %% [markdown]
# With the costs of your machine, and the acceptance of the greedy text:

# %%
for batch in (1, 2, 4, 8, 16):
    print(f"{batch:2} texts: guess {attempt(best_k, right, batch, costs.draft, costs.cost)} tokens")

# %%
crowd = Prediction(
    "15",
    "3 guesses for each of 8 texts",
    "Eight texts, 3 guesses for each: how many times faster than eight texts without?",
    "times",
)
crowd.ask()

# %% tags=["solution"]
crowd.record(1)

# %%
BATCHES = (1, 2, 4, 8)
SHORT = scaled(33, heavy, tokens=72, seconds=90, least=9)  # tokens; 33 of a small model
batches = batch_gains(engine, BATCHES, 3, n=SHORT)
engine.close()
predicted = {}
for batch in BATCHES:  # the unit of time is a pass of the batch without guesses
    unit = costs.cost(batch)
    law = attempt(speedup, right, 3, costs.draft / unit, costs.cost(4 * batch) / unit)
    if isinstance(law, float):
        predicted[batch] = law
show(crowd.compare(batches[8].ratio, model=predicted.get(8)))
for batch, gain in batches.items():
    measurement("15", f"speed-up of 3 guesses, {batch} texts", gain.ratio, "times")

# %%
print(batch_table(batches, predicted))
curves = {"measured": [gain.ratio for gain in batches.values()], "break-even": [1.0] * len(BATCHES)}
if len(predicted) == len(BATCHES):
    curves["the law"] = list(predicted.values())
title = "Three guesses for each text of a batch"
show(two_sided(BATCHES, curves, title, "texts", "times faster", logarithmic="x"))

# %% [markdown]
# The law knows the passes of one text with many rows, and the price of guesses for one text. A batch has more: each text has
# its own cache and its own draws, texts read their prompts, guesses for eight texts take longer than for one, and texts end
# at different steps. A verdict *cannot tell* means that the rounds do
# not agree: close other programs and run the cell again, or believe neither.
#
# On a GPU the bend of the roofline is at hundreds of rows, so guesses pay in larger batches there. A server with enough
# readers turns them off.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * A pass over a few tokens reads the weights once. Guesses use arithmetic that waits for memory otherwise.
# * Tokens of a pass: $(1 - a^{k+1}) / (1 - a)$. Speed-up: that, over the cost of the pass and k guesses. There is a best k.
# * Lookup is free, and right where text repeats itself. A draft model must be quick *and* agree with the model.
# * Rejection sampling keeps min(1, p/q) and replaces from max(p - q, 0): the same distribution. Verifying by the same sample
#   accepts less at high temperature, and gives the same text for the same seed.
# * A batch pays with the same arithmetic. The larger it is, the shorter the guess, down to none.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | a draft model | `llama-server -m large.gguf -md small.gguf` | `minillama serve -m large.gguf -md small.gguf`; `ml.load(model_draft=)` |
# | tokens of a guess | `--draft-max 3`, `--draft-min 0` | the same; `draft_max=`, `draft_min=` |
# | end a guess early | `--draft-p-min` | the same; `draft_p_min=` |
# | prompt lookup | `--spec-type ngram-simple`, `llama-lookup` | `--lookup`; `llm.generate(..., lookup=True)` |
# | how many were right | `draft_n`, `draft_n_accepted` in `timings` | the same; `completion.timings.accept_rate` |
#
# ## When you get an error
#
# * `the draft model ... does not fit ...`: guesses are token numbers, so both models need the same vocabulary.
# * `other processes used ... of the CPU cores`: the costs of section 1 and the texts of section 3 were measured under other
#   load, and the law cannot fit. Run both sections again.
# * `lookup` and a grammar: texts with a grammar get no guesses.
# * A first run is slow: each length of a pass is a program that is compiled once.
