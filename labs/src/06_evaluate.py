# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 06 · Evaluate: how good, how fast, how sure
#
# "The quantised model is as good as the original, and faster." Every report has sentences like this, and most of them
# rest on one number without an error bar. In this lab you measure the usual quantities: perplexity, latency, memory,
# diversity, relevance. For each number you also learn what it does *not* show.
#
# | | |
# |---|---|
# | **Afterwards you can** | compute a perplexity and its error bar by hand, report latencies by percentiles, and separate claims that the data support from claims that they do not |
# | **Time** | 60 minutes |
# | **You should know** | lab 04 (sampling), lab 05 (first token, later tokens); mean and standard deviation |
# | **Runs on** | any laptop, a minute of computing at most, no network |
# | **In llama.cpp** | `llama-perplexity -m M -f TEXT -c 256`, with `--kl-divergence-base` and `--kl-divergence`; the timings of `llama-completion` |

# %%
import sys

import numpy as np

from minillama.lab import Dropdown, Panel, Prediction, collect, running, show
from minillama.lab.checks import lab06 as check
from minillama.lab.experiments.quantised_storytellers import (
    distance,
    heldout_ids,
    heldout_text,
    load_quantised,
    quantised,
    scored_logits,
)
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import scaled
from minillama.lab.plots.lab_plots import bars, lines
from minillama.lab.plots.measurement_plots import bands
from minillama.lab.widgets.figure import text_table
from minillama.measure.host.child_process import measure_process
from minillama.measure.quality.perplexity import running_perplexity
from minillama.measure.texts.diversity import words
from minillama.measure.texts.text_quality import heldout_texts, measure_quality
from minillama.model import cache_bytes

MODEL = None  # or the path of your own GGUF file
llm = load_quantised("F16", MODEL)  # None: the storyteller in 16 bits
text = heldout_text()
CTX = 256
ids = heldout_ids(llm, passes=16, least=2 * CTX)  # all of it, if the model is small
print(
    f"{len(ids)} tokens of stories that this model was not trained on; the text begins: "
    f"{text[:70]!r}"
)
llm

# %% [markdown]
# ## 1. Surprise
#
# A model gives each token that *did* come a probability p. Its surprise is the **negative log-likelihood**, nll = −ln
# p, in nats. Perplexity is exp of the mean nll. A perplexity of 7 means: on average the model is as uncertain as with 7
# equally likely tokens. A model that guesses uniformly has a perplexity of its vocabulary size; a perfect one has 1.
#
# The storyteller has 2,048 tokens and was trained on simple children's stories. The held-out text is children's stories
# too, by a different author.

# %%
guess = Prediction(
    "06",
    "perplexity of the held-out text",
    "What is the model's perplexity on stories that it has not seen?",
    "tokens",
)
guess.ask()

# %% tags=["solution"]
guess.record(15)  # "it writes such stories itself"

# %% [markdown]
# ### Exercise 1: the likelihood of a text
# `logits` is `[T, V]`: row t is the model's prediction after the tokens `ids[0]` to `ids[t]`. Return the nll of each
# next token, `[T - 1]`. The token that the last row predicts is not in the text. Logits can be very large, so `exp` may
# overflow.


# %% tags=["exercise"]
def nll(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """-ln p of ids[1], ids[2], ... given the tokens before each, [T - 1]."""
    raise NotImplementedError


# %% tags=["solution"]
def nll(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """-ln p of ids[1], ids[2], ... given the tokens before each, [T - 1]."""
    shifted = logits[:-1] - logits[:-1].max(axis=-1, keepdims=True)
    wanted = shifted[np.arange(len(ids) - 1), ids[1:]]
    return np.log(np.exp(shifted).sum(axis=-1)) - wanted


# %% [markdown] tags=["hint"]
# $-\ln \mathrm{softmax}(l)_i = \ln \sum_j e^{l_j - m} - (l_i - m)$ with m the row's largest logit. Row t belongs to
# token `ids[t + 1]`, so `logits[:-1]` and `ids[1:]` go together. `x[np.arange(n), columns]` picks one number from each
# row.

# %% tags=["check"]
check.nll(nll)

# %% [markdown]
# ### Exercise 2: perplexity and its error bar
# Another text of the same kind would give another number. The standard error of a mean of n values is their standard
# deviation over √n (with `ddof=1`, because the mean was estimated from the same values). And if the mean changes by a
# small δ, exp of it changes by exp(mean) · δ. llama-perplexity prints both: `PPL = 5.93 +/- 0.03`.


# %% tags=["exercise"]
def perplexity(nll: np.ndarray) -> tuple[float, float]:
    """Perplexity and its standard error."""
    raise NotImplementedError


# %% tags=["solution"]
def perplexity(nll: np.ndarray) -> tuple[float, float]:
    """Perplexity and its standard error."""
    ppl = np.exp(nll.mean())
    return ppl, ppl * nll.std(ddof=1) / np.sqrt(len(nll))


# %% [markdown] tags=["hint"]
# `np.exp(nll.mean())`; the error of the mean is `nll.std(ddof=1) / np.sqrt(len(nll))`, and you must multiply it with
# the perplexity.

# %% tags=["check"]
check.perplexity(perplexity)

# %% [markdown]
# A long text is split into **windows**. The first half of each window is only context, so that every scored token has
# tokens before it. So the number depends on `-c`: compare only numbers with the same `-c`, text and tokeniser. With
# windows of 256 tokens:

# %%
windows = running_perplexity(llm, ids, ctx_size=CTX)
*_, engine = collect(windows, "windows of the text", len(ids) // CTX)
show(guess.compare(engine.ppl, model=llm.config.vocab_size))


# %%
def likelihoods(model, tokens, ctx_size=CTX):
    """The nll of every scored token, with your function."""
    return np.concatenate([nll(*window) for window in scored_logits(model, tokens, ctx_size)])


def shown(value):
    """A perplexity with its error, or why there is none."""
    return "{:.1f} +/- {:.1f}".format(*value) if isinstance(value, tuple) else value


START = "Once upon a time"
OWN = {"n": 200, "temp": 0.8, "ignore_eos": bool(MODEL)}
COUNT = scaled(12, llm, tokens=200, least=3)  # 12 of a small model
stories = []
with running("stories", steps=COUNT) as step:
    for seed in range(COUNT):
        stories.append(START + llm.generate(START, seed=seed, **OWN).text)
        step()
own_ids = llm.tokenizer.encode("\n\n".join(stories))
for name, tokens in (("held-out stories", ids), ("its own stories", own_ids)):
    with running("perplexity, twice", seconds=30 if MODEL else 3):
        *_, estimate = running_perplexity(llm, tokens, ctx_size=CTX)
        yours = attempt(lambda tokens=tokens: perplexity(likelihoods(llm, tokens)))
    print(f"{name:21} engine {estimate.ppl:.1f} +/- {estimate.error:.1f}, you {shown(yours)}")

# %% [markdown]
# The surprise: around 200, a tenth of the vocabulary, and about 2 on its own text. Perplexity belongs to a model **and
# a text**. The held-out stories have many words that this small model was not trained on, and a single one of them
# costs more than a whole easy sentence. This also makes the error bar wide.
#
# ## 2. Four files, four bars
#
# Now test the claim: 8 and 4 bits instead of 16. This cell makes the files, as `llama-quantize` does.

# %%
worse = Prediction(
    "06",
    "perplexity of Q4_0 over F16",
    "By how many percent is the perplexity of Q4_0 higher than that of F16?",
    "percent more",
)
worse.ask()

# %% tags=["solution"]
worse.record(10)  # a quarter of the bits, so it must show

# %%
NAMES = ("F16", "Q8_0", "Q4_0", "Q2_K")
so_far = {}
with running("types", steps=len(NAMES)) as step:
    for name in NAMES:
        windows = running_perplexity(load_quantised(name, MODEL), ids, ctx_size=CTX)
        so_far[name] = [(each.count, each.ppl, each.error) for each in windows]
        step()
for name, points in so_far.items():
    print(f"{name:5} {points[-1][1]:6.1f} +/- {points[-1][2]:.1f}")
    measurement("06", f"perplexity, {name}", points[-1][1], "tokens")
show(worse.compare(100 * (so_far["Q4_0"][-1][1] / so_far["F16"][-1][1] - 1)))
# %%
show(bands(so_far, "Running perplexity of the held-out stories", "scored tokens", "perplexity"))

# %% [markdown]
# On the left of the figure, after a few windows, the number is off by a third; a report that stopped there would be
# wrong. On the right, four error bars overlap, and Q4_0 is even *below* F16. Is it better? Is Q2_K as good as F16,
# because the bars overlap?
#
# Neither follows. The bars show how much *another text* could differ, and most of that comes from the text: hard words
# are hard for all four models. But all models read **the same tokens**. So subtract token by token, and compute the
# error of the mean *difference*.
#
# ### Exercise 3: what two error bars allow
# `a` and `b` are the nll of two models on the same tokens. Return −1 if a is better (smaller nll), 1 if b is better,
# and 0 if the text cannot decide: if the mean of `b - a` is within two of its standard errors.


# %% tags=["exercise"]
def verdict(a: np.ndarray, b: np.ndarray) -> int:
    """-1: a is better, 1: b is better, 0: this text cannot tell."""
    raise NotImplementedError


# %% tags=["solution"]
def verdict(a: np.ndarray, b: np.ndarray) -> int:
    """-1: a is better, 1: b is better, 0: this text cannot tell."""
    difference = b - a
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    if abs(difference.mean()) <= 2 * error:
        return 0
    return -1 if difference.mean() > 0 else 1


# %% [markdown] tags=["hint"]
# `difference = b - a`, its standard error is `difference.std(ddof=1) / np.sqrt(len(difference))`. Only a mean beyond
# two standard errors counts; above 0 means that b has more surprise.

# %% tags=["check"]
check.verdict(verdict)


# %%
def claims(name):
    """A quantised model against F16: paired difference, verdict, KL divergence, same first choice."""
    base = [logits[:-1] for logits, _ in scored_logits(llm, ids, CTX)]
    ours = [logits[:-1] for logits, _ in scored_logits(load_quantised(name, MODEL), ids, CTX)]
    divergence = distance(np.concatenate(base), np.concatenate(ours))
    a, b = likelihoods(llm, ids), likelihoods(load_quantised(name, MODEL), ids)
    change, error = 100 * (b - a).mean(), 100 * (b - a).std(ddof=1) / np.sqrt(len(a))
    words = {-1: "F16 is better", 0: "cannot tell", 1: f"{name} is better"}[verdict(a, b)]
    return (
        name,
        f"{change:+.1f} % ± {error:.1f}",
        words,
        f"{divergence.kld:.3f}",
        f"{divergence.same_top:.0%}",
    )


table = []
with running("types", steps=len(NAMES) - 1) as step:
    for name in NAMES[1:]:
        table.append(attempt(claims, name))
        step()
if all(isinstance(row, tuple) for row in table):
    print(
        text_table(
            ("against F16", "PPL, pair by pair", "verdict", "KL divergence", "same first choice"),
            table,
        )
    )
else:
    print(table[0])

# %% [markdown]
# * **Pair by pair** the error is many times smaller, and the worst model is clearly separated although the bars
#   overlapped. The others are not: this text shows neither that they lost quality nor that they did not.
# * **KL divergence** does not use only the token that came. It compares *all* probabilities at each position. By this
#   measure Q4_0 is much further from F16 than Q8_0, and its most likely token differs at one position in five. "Not
#   worse on this text" and "the same model" are different claims.
#
# llama.cpp does the same: `--kl-divergence-base base.kld` with the large model, then `--kl-divergence` with the small
# one. It prints `Mean ln(PPL(Q)/PPL(base))`, pair by pair.
#
# ## 3. Try it yourself: when is a perplexity reliable?
#
# **Start** evaluates the text window by window; every curve stays. **Stop** ends the measurement. Try F16 with `-c 64`
# and with 512: with more context before each scored token, the same model has a different perplexity. Try its own
# story.

# %%
TEXTS = {"held-out stories": ids, "its own stories": own_ids}
SHORTEST = min(len(ids), len(own_ids))  # a text needs two windows
WINDOWS = tuple(ctx for ctx in ("64", "128", "256", "512") if 2 * int(ctx) <= SHORTEST)
curves = {}


def draw(settings):
    """All curves measured so far, without widgets: settings in, figure out."""
    return bands(curves, "Running perplexity, ± one standard error", "scored tokens", "perplexity")


def measure(settings):
    """One curve without widgets: settings in; a line and a figure per window out."""
    name = f"{settings['type']}, {settings['text']}, -c {settings['ctx']}"
    curves[name] = points = []
    yield f"{name}\n"
    model = load_quantised(settings["type"], MODEL)
    for each in running_perplexity(model, TEXTS[settings["text"]], ctx_size=int(settings["ctx"])):
        points.append((each.count, each.ppl, each.error))
        yield f"[{each.chunk}/{each.chunks}] {each.ppl:.2f} ± {each.error:.2f}\n"
        yield draw(settings)


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown(
            "type",
            "type",
            ("F16", "Q8_0", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K"),
            "F16",
            "how the weights are stored",
        ),
        Dropdown(
            "ctx",
            "-c",
            WINDOWS,
            "256",
            "tokens of a window; its second half is scored",
        ),
        Dropdown("text", "-f", tuple(TEXTS), "held-out stories", "what is read"),
    ],
    draw,
    measure,
).show()

# %% [markdown]
# The same without buttons; on the command line it is `minillama perplexity -m storyteller-f16 -f data/heldout.txt -c
# 64`.

# %%
for ctx in ("64", "256"):
    curve = measure({"type": "F16", "ctx": ctx, "text": "held-out stories"})
    *_, last = collect(curve, "windows", len(ids) // int(ctx))
show(last)

# %% [markdown]
# ## 4. Latency: use percentiles, not the mean
#
# Twelve questions of different lengths, with 40 tokens of answer to each. A user notices the wait for the first token,
# and every pause of the text. So report latencies by **percentiles**: p50 is the median; 99 of 100 values are below
# p99.

# %%
tail = Prediction(
    "06",
    "p99 over p50 of a later token",
    "How many times longer than the median is the p99 of a later token?",
    "times",
)
tail.ask()

# %% tags=["solution"]
tail.record(1.2)  # every token is the same work

# %%
COUNT = scaled(12, llm, tokens=2 * 40, seconds=50, least=4)  # 12 of a small model
openings = [story[: 60 + 40 * number] for number, story in enumerate(heldout_texts()[:COUNT])]
with running("answers", steps=2 * len(openings)) as step:
    for _ in range(2):  # the first time compiles
        answers = []
        for opening in openings:
            pieces = llm.stream(opening, n=40, temp=0.8, seed=1, ignore_eos=True)
            answers.append([piece.seconds for piece in pieces])
            step()

# %% [markdown]
# ### Exercise 4: percentiles of latencies
# `answers` is a list of answers, each a list of seconds: the first is the time to the first token, the others are times
# between tokens. Return the median of the first ones, and the median and p99 of all later ones together, in seconds.
# The interpolation of `np.percentile` is right here.


# %% tags=["exercise"]
def latencies(answers: list[list[float]]) -> tuple[float, float, float]:
    """p50 of the first tokens, p50 and p99 of the later ones."""
    raise NotImplementedError


# %% tags=["solution"]
def latencies(answers: list[list[float]]) -> tuple[float, float, float]:
    """p50 of the first tokens, p50 and p99 of the later ones."""
    first = [answer[0] for answer in answers]
    later = [seconds for answer in answers for seconds in answer[1:]]
    return np.median(first), np.percentile(later, 50), np.percentile(later, 99)


# %% [markdown] tags=["hint"]
# `answer[0]` of each answer into one list, `answer[1:]` of all of them into another; then `np.percentile(values, [50,
# 99])`.

# %% tags=["check"]
check.latencies(latencies)

# %%
got = attempt(latencies, answers)
if isinstance(got, tuple):
    print(
        "first token p50 {:.2f} ms, later tokens p50 {:.2f} ms, p99 {:.2f} ms".format(
            *(1e3 * value for value in got)
        )
    )
    show(tail.compare(got[2] / got[1], model=1.0))
later = 1e3 * np.concatenate([answer[1:] for answer in answers])
first = 1e3 * np.array([answer[0] for answer in answers])
SHARES = (1, 10, 25, 50, 75, 90, 95, 99, 100)
show(
    lines(
        {"first token": np.percentile(first, SHARES), "later tokens": np.percentile(later, SHARES)},
        [f"p{share}" for share in SHARES],
        "Latencies by percentile",
        "percentile",
        "milliseconds",
        logarithmic=True,
    )
)

# %% [markdown]
# Every later token is the same work, so *model says* 1. But the slow end is longer: other processes, a changing clock
# frequency, tasks of the system. A mean hides this, and a maximum of a few hundred measurements is random. Twelve first
# tokens have a median, but no p99.
#
# ## 5. Memory
#
# The necessary memory by formula, and the peak of a whole process: `minillama run` in a separate process, measured as
# `/usr/bin/time -v` does.

# %%
command = [
    sys.executable,
    "-m",
    "minillama",
    "run",
    "-m",
    str(quantised("F16", MODEL)),
    "-no-cnv",
    "-p",
    "Once upon a time",
    "-n",
    "16",
]
with running("a process, from its start to its end", seconds=5):
    life = attempt(measure_process, command)
parts = {
    "weights": llm.file.nbytes / 2**20,
    "KV cache, 512 tokens": cache_bytes(llm.config, 512, llm.cache_types) / 2**20,
}
if isinstance(life, str):
    print(life)
else:
    parts["the whole process at its peak"] = life.peak / 2**20
show(bars(list(parts), list(parts.values()), "Memory", "MiB", logarithmic=True))

# %% [markdown]
# For a model of 5 MB, Python and XLA take most of the memory; for one of 5 GB they are a few percent. State which of
# the two you report.
#
# ## 6. Diversity and relevance
#
# Perplexity measures how well a model predicts given text. How good is the text that it *generates*? There are two
# cheap numbers, and both can be cheated. **Diversity**: distinct-n (a larger value is more diverse) or self-BLEU
# (similarity of the texts to each other). **Relevance**: similarity of a text to its prompt. Here it is computed as in
# BERTScore: each token is matched with the most similar one of the other text, by the model's own hidden states, and
# the score is rescaled so that unrelated texts have 0.
#
# ### Exercise 5: distinct-n
# `texts` is a list of texts, each a list of words. Take all runs of n neighbouring words (n-grams) of each text, and
# return the number of *different* ones over the number of all.


# %% tags=["exercise"]
def distinct(texts: list[list[str]], n: int) -> float:
    """Number of different n-grams over the number of all n-grams, for all texts together."""
    raise NotImplementedError


# %% tags=["solution"]
def distinct(texts: list[list[str]], n: int) -> float:
    """Number of different n-grams over the number of all n-grams, for all texts together."""
    runs = [tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)]
    return len(set(runs)) / len(runs)


# %% [markdown] tags=["hint"]
# A text of T words has T − n + 1 runs, `tuple(text[start : start + n])`. Put the runs of all texts into one list; `set`
# keeps the different ones.

# %% tags=["check"]
check.distinct(distinct)

# %%
PROMPTS = ("Once upon a time, there was a little fox who", "Lily had a red ball. One day")
TEMPERATURES = (0.2, 0.5, 0.8, 1.1, 1.4, 2.0)
settings = [llm.sampling(temp=temp, top_k=0, top_p=1.0, min_p=0.0) for temp in TEMPERATURES]
SAMPLES = scaled(8, llm, tokens=12 * 40, seconds=30, least=1)  # 8 of a small model
work = measure_quality(llm, PROMPTS, settings, samples=SAMPLES, n=40, seed=1)
rows = collect(work, "temperatures", len(TEMPERATURES))
samples = [
    [
        [list(words(each.text)) for each in row.samples if each.prompt.text == prompt]
        for prompt in PROMPTS
    ]
    for row in rows
]
shares = [
    attempt(lambda texts=texts: float(np.mean([distinct(each, 2) for each in texts])))
    for texts in samples
]
curve = {
    "distinct-2, yours": shares if all(isinstance(share, float) for share in shares) else [],
    "self-BLEU": [row.diversity.self_bleu for row in rows],
    "relevance to the prompt (F1)": [row.relevance.f1 for row in rows],
    "likelihood of a token": [1 / row.fluency.perplexity for row in rows],
}
show(
    lines(
        {name: values for name, values in curve.items() if values},
        [f"{temp:g}" for temp in TEMPERATURES],
        f"{2 * SAMPLES} texts at each temperature",
        "temperature",
        "share or score",
    )
)
for row in (rows[0], rows[-1]):
    print(f"temperature {row.setting.temp:g}: {row.samples[0].text[:90]!r}")

# %% [markdown]
# * Diversity always rises, and at temperature 2 it is almost perfect, because nonsense does not repeat itself.
#   **Diversity alone is not quality**: read it together with a likelihood, and read the texts too.
# * Relevance falls as diversity rises, because both mean a larger distance from the prompt. It is far from 1 even at
#   low temperature, because a continuation does not repeat its prompt. With 16 short texts it is noisy. Compare it only
#   within one model, layer and corpus.
#
# On the command line: `minillama quality -p "Lily had a red ball. One day" --temp 0.2,0.8,2.0`. llama.cpp does not
# measure this; use its texts and count.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Perplexity is exp of the mean surprise, of a model *and* a text, at one `-c`. Never report it without an error bar.
# * Compare two models on one text pair by pair. Overlapping bars prove nothing, in either direction; "cannot tell" is a
#   result.
# * KL divergence shows how much a model changed; perplexity shows whether the change made it worse on this text.
# * Report latency by percentiles, with the first token separate and compile time excluded (and say so). Report memory
#   of weights, cache and process separately.
# * Diversity and relevance are easy to count and easy to cheat. Always report both, with a likelihood.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | perplexity with its error | `llama-perplexity -m M -f TEXT -c 256` | `minillama perplexity -m M -f TEXT -c 256` |
# | write the base's distributions | `... --kl-divergence-base base.kld` | the same |
# | compare with the base | `... --kl-divergence-base base.kld --kl-divergence` | the same |
# | make a smaller file | `llama-quantize IN OUT Q4_0` | `minillama quantize IN OUT Q4_0` |
# | latencies | `llama-bench`; *eval time* of `llama-completion` | `minillama bench`; `piece.seconds` of `llm.stream` |
# | diversity, relevance | | `minillama quality -p P --temp 0.2,0.8` |
#
# ## When you get an error
#
# * `you need at least ... tokens to evaluate perplexity`: a text must fill two windows. Use a longer text, or a smaller
#   `-c`.
# * `windows of 512 tokens, but a context of ...`: load with a larger `ctx_size`.
# * Your perplexity is `inf` or `nan`: exp of a large logit. Subtract each row's largest first.
# * The panel says *compiling*: each type and each `-c` is a separate program, compiled once.
