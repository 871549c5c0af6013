# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 11 · Lying benchmarks
#
# A wrong benchmark does not look wrong. It runs, it prints a number with three digits, and often the number is the one that
# its author hoped for. This lab has eight reports. Each measures something real on one model, and each is wrong in
# exactly one way. Read their code as if its author wanted to sell you a processor.
#
# | | |
# |---|---|
# | **Afterwards you can** | name eight flaws of benchmarks from their code, estimate the error of each, write a timer without them, and say faster, slower or *cannot tell* from pairs of runs |
# | **Time** | 75 minutes |
# | **You should know** | lab 00 (timing), lab 05 (prefill, decode), lab 06 (perplexity pair by pair), lab 08 (interleaved A/B) |
# | **Runs on** | any laptop, a minute of computing at most, no network |
# | **In llama.cpp** | `llama-bench -r 5 -d 0,512 -t 4`, `--no-warmup`; `llama-perplexity --kl-divergence` |

# %%
import gc
import itertools
import math
import time
from statistics import median

import jax
import jax.numpy as jnp

from minillama import env
from minillama.gguf import dequantize
from minillama.lab import IntSlider, Panel, Prediction, running, show
from minillama.lab.benchmarks.equal_quality import fair_shrink, token_nll
from minillama.lab.benchmarks.interval_plots import ratio_intervals, side_words
from minillama.lab.benchmarks.ratio_interval import Interval, ratio_interval
from minillama.lab.benchmarks.recorded_calls import recorded_calls
from minillama.lab.benchmarks.repeated_runs import Noise, statistics_of_reports
from minillama.lab.checks import lab11 as check
from minillama.lab.experiments.counted_passes import big_model
from minillama.lab.experiments.quantised_storytellers import (
    heldout_ids,
    heldout_text,
    load_quantised,
    quantised,
)
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, model_name, scaled
from minillama.measure.limits.bandwidth import read_bandwidth
from minillama.measure.limits.work_per_token import weight_bytes
from minillama.measure.tables import plain_table

clock = time.perf_counter
cores = len(env.describe().affinity)
MODEL = None  # or the path of your own GGUF file
with running("the model in 8 and in 16 bits", seconds=10 if MODEL else 2):
    storyteller = load_quantised("Q8_0", MODEL)  # None: the storyteller
    f16 = load_quantised("F16", MODEL)
CHARACTERS = scaled(1000, storyteller, tokens=8, rows=8, seconds=10, least=150)
engine = storyteller.batch_engine(slots=1, ctx_size=2048 if MODEL else 512)
big = lab_model(MODEL, big_model, ctx_size=128)  # None: 73 MB, more than a processor's cache
STORY = heldout_text()[:CHARACTERS]
print(f"{cores} cores, {env.thread_limits()[1]} threads compute")


def predict(letter):
    """Ask for the ratio of a report's number to the true one."""
    made = Prediction(
        "11",
        f"report {letter}: said over true",
        f"Report {letter}: its number is how many times the true one? (0.5: half of it; 1: right)",
        "times",
    )
    made.ask()
    return made


# %% [markdown]
# The material of the reports: the first feed-forward block of the model, with inputs of 512 tokens (fewer with a
# large model) and of 64.

# %%
tensors = [storyteller.file.tensors[f"blk.0.ffn_{name}.weight"] for name in ("gate", "up", "down")]
gate, up, down = (jnp.asarray(dequantize(tensor).T) for tensor in tensors)
CALLS = 7 * 48  # of the block with many tokens, in all rounds below
TOKENS = scaled(  # 512 of a small model
    512, storyteller, CALLS / storyteller.config.block_count, rows=8, seconds=10, least=128
)
many, few = jnp.ones((TOKENS, gate.shape[0])), jnp.ones((64, gate.shape[0]))
block = jax.jit(lambda x: (jax.nn.silu(x @ gate) * (x @ up)) @ down)
for x in (many, few):
    block(x).block_until_ready()  # compiles, once for each shape

# %% [markdown]
# ## 1. Eight reports
#
# Read each one, and predict before you run it: *the reported value* over *the true value*.
#
# **Report A.** "The feed-forward block takes this many milliseconds for 512 tokens. Mean of 20 calls."


# %%
def report_a():
    """Milliseconds of a block."""
    constant = time.time_ns() % 1_000_003 / 1e12  # another program in each report
    start = clock()
    changed = jax.jit(lambda x: (jax.nn.silu(x @ gate + constant) * (x @ up)) @ down)
    for _ in range(20):
        changed(many).block_until_ready()
    return 1e3 * (clock() - start) / 20


predictions = {"A": predict("A")}

# %% [markdown]
# **Report B.** "The same block, warmed up, the median of 9 calls. Our hardware is amazing."


# %%
def report_b():
    """Milliseconds of a block."""
    block(many).block_until_ready()
    times = []
    for _ in range(9):
        start = clock()
        block(many)
        times.append(clock() - start)
    return 1e3 * median(times)


predictions["B"] = predict("B")

# %% [markdown]
# **Report C.** "With greedy decoding the first token comes this many times sooner than with sampling. We used a new story
# every time."

# %%
numbers = itertools.count(100)


def report_c():
    """Time to first token: sampling over greedy."""
    story = f"{next(numbers)} times a day. {STORY}"
    sampling = engine.submit(story, n=1, temp=0.8, seed=1).finish().timings.first_token
    greedy = engine.submit(story, n=1, temp=0.0).finish().timings.first_token
    return sampling / greedy


predictions["C"] = predict("C")

# %% [markdown]
# **Report D.** "The random seed 2 generates this many times more tokens a second than the seed 1."


# %%
SHORT = scaled(16, storyteller, tokens=28 * 7, seconds=30, least=2)  # tokens; 16 of a small model
RUNS = scaled(9, storyteller, tokens=3 * 7 * 4, seconds=20, least=5)  # 9 of a small model


def generation_speed(seed):
    """Tokens a second of a short story."""
    done = storyteller.generate("Once upon a time", n=SHORT, temp=0.8, seed=seed, ignore_eos=True)
    return done.timings.generated_per_second


def report_d():
    """Tokens a second: seed 2 over seed 1."""
    ours = max(generation_speed(seed=2) for _ in range(RUNS))
    rivals = generation_speed(seed=1)
    return ours / rivals


predictions["D"] = predict("D")

# %% [markdown]
# **Report E.** "Our rival's block takes this many milliseconds for 64 tokens, in a program that runs for days." (Python's
# garbage collector runs at times that are hard to predict; here it runs in fixed calls, so that every report has some.)


# %%
def times_e():
    """Seconds of 30 calls, with the garbage of a long program."""
    times = []
    for call in range(30):
        start = clock()
        block(few).block_until_ready()
        if call % 15 == 5:
            gc.collect()
        times.append(clock() - start)
    return times


def report_e():
    """Milliseconds of a block for 64 tokens."""
    times = times_e()
    return 1e3 * sum(times) / len(times)


predictions["E"] = predict("E")

# %% [markdown]
# **Report F.** "Q8_0 reads prompts this many times faster than F16, in tokens a second. Medians of 3."


# %%
SAMPLES = scaled(3, storyteller, tokens=7 * 12 * 8, seconds=20)  # 3 of a small model

def prompt_speed(llm, prompt):
    """Tokens a second of a prompt, the median of a few."""
    texts = [llm.generate(prompt, n=1, temp=0.0) for _ in range(SAMPLES)]
    return median(text.timings.prompt_per_second for text in texts)


def report_f():
    """Tokens a second of a prompt: Q8_0 over F16."""
    return prompt_speed(storyteller, STORY) / prompt_speed(f16, STORY[:60])


predictions["F"] = predict("F")

# %% [markdown]
# **Report G.** "The same model, this many times smaller."

# %%
TYPES = ("F16", "Q8_0", "Q4_0", "Q2_K")
with running("files of four types", seconds=15 if MODEL else 2):
    sizes = {name: quantised(name, MODEL).stat().st_size for name in TYPES}


def report_g():
    """Bytes of the F16 file over those of ours."""
    return sizes["F16"] / min(sizes.values())


predictions["G"] = predict("G")

# %% [markdown]
# **Report H.** "Decoding the large model reads its weights at this share of the memory's bandwidth: near the roofline."


# %%
def weights_read():
    """Bytes a second of weights that decoding reads, the median of a few."""
    texts = [big.generate([5, 6, 7], n=8, temp=0.0, ignore_eos=True) for _ in range(SAMPLES)]
    speed = median(text.timings.generated_per_second for text in texts)
    return speed * weight_bytes(big.file, big.config)


def report_h():
    """Share of the bandwidth, in percent."""
    roof = read_bandwidth(threads=1, size=128 << 20, passes=6)
    return 100 * weights_read() / roof


predictions["H"] = predict("H")

# %% tags=["solution"]
for letter, ratio in zip("ABCDEFGH", (2, 0.5, 1.2, 1.1, 1.2, 2, 1, 1.5), strict=True):
    predictions[letter].record(ratio)  # "a little here, a little there"

# %% [markdown]
# Now run them. The first run of C, D, F and H compiles or loads something, so it is discarded. (Their `timings` exclude
# compilation, but not everything else that only a first run does.)

# %%
functions = (report_a, report_b, report_c, report_d, report_e, report_f, report_g, report_h)
units = ("ms", "ms", "×", "×", "ms", "×", "×", "%")
REPORTS, UNITS = (dict(zip("ABCDEFGH", each, strict=True)) for each in (functions, units))
with watched_load(), running("reports", steps=4 + len(REPORTS)) as step:
    for letter in "CDFH":
        REPORTS[letter]()  # compiles
        step()
    for letter, report in REPORTS.items():
        print(f"report {letter} says: {report():.3g} {UNITS[letter]}")
        step()

# %% [markdown]
# ### Exercise 1: name the flaws
# Each report has exactly one of the flaws in `check.FLAWS`, and two of the names belong to no report. Return a dictionary
# from each letter to the name. A wrong name gets a hint on where to look.

# %% tags=["check-output"]
print(check.flaw_list())


# %% tags=["exercise"]
def flaws():
    """Letter of each report: name of its flaw, as in {"A": "...", "B": "...", ...}."""
    raise NotImplementedError


# %% tags=["solution"]
def flaws():
    """Letter of each report: name of its flaw, as in {"A": "...", "B": "...", ...}."""
    return {
        "A": "compilation inside the timed region",
        "B": "no block_until_ready",
        "C": "cold cache against warm cache",
        "D": "best of n against a single run",
        "E": "mean with outliers",
        "F": "different prompt lengths",
        "G": "model quality ignored",
        "H": "different numbers of threads",
    }


# %% [markdown] tags=["hint"]
# For a time: what happens between the two readings of `clock`, and when is it complete? For a ratio: write both sides below
# each other, with all arguments. Everything that differs, except the thing that is compared, is a suspect. Also think of the
# state that the engine *keeps* from the first side when the second one runs.

# %% tags=["check"]
check.flaws(flaws)

# %% [markdown]
# ### Exercise 2: a robust timer
# Write `fair_time(f, x, clock)`: the typical seconds of one call `f(x)`. In lab 00 you wrote a timer that copes with
# compilation, asynchronous dispatch and outliers. Here is one more trap: a call of `f` is shorter than **the resolution of
# the clock**. The check's clock shows whole milliseconds, and a call takes less than half of one.
#
# So time a block of calls. They run in the order of the calls: it is enough to wait for the last result. But do not put all
# calls into one block: an outlier would be in it.


# %% tags=["exercise"]
def fair_time(f, x, clock):
    """Typical seconds of one call `f(x)`."""
    raise NotImplementedError


# %% tags=["solution"]
def fair_time(f, x, clock):
    """Typical seconds of one call `f(x)`."""
    jax.block_until_ready(f(x))
    times = []
    for _ in range(9):
        start = clock()
        for _ in range(50):
            result = f(x)
        jax.block_until_ready(result)
        times.append((clock() - start) / 50)
    return median(times)


# %% [markdown] tags=["hint"]
# One call without timing, and wait for it. Then nine times: read the clock, call `f` fifty times, wait for the last result
# with `jax.block_until_ready`, read the clock, and store the difference over fifty. Return the median of the nine.

# %% tags=["check"]
check.fair_time(fair_time)

# %%
with watched_load(), running("your timer", seconds=10 if MODEL else 2):
    yours = attempt(fair_time, block, few, clock)
shown = f"{1e3 * yours:.3g} ms" if isinstance(yours, float) else yours
print("the block for 64 tokens, your timer:", shown)

# %% [markdown]
# ## 2. The true values
#
# The same eight questions, measured fairly. Each function differs from its report in one point.


# %%
def waited(call):
    """Milliseconds of a call, until its result exists."""
    start = clock()
    call().block_until_ready()
    return 1e3 * (clock() - start)


def true_ab():
    """A, B: compiled before the timed region, with block_until_ready, the median."""
    return median(waited(lambda: block(many)) for _ in range(9))


def true_c():
    """C: both sides read the whole prompt."""
    story = f"{next(numbers)} times a day. {STORY}"
    sampling = engine.submit(story, n=1, temp=0.8, seed=1, cache_prompt=False).finish()
    greedy = engine.submit(story, n=1, temp=0.0, cache_prompt=False).finish()
    return sampling.timings.first_token / greedy.timings.first_token


def true_d():
    """D: as many runs on both sides, interleaved, and the median of the ratios."""
    pairs = [(generation_speed(seed=2), generation_speed(seed=1)) for _ in range(RUNS)]
    return median(ours / rivals for ours, rivals in pairs)


def true_e():
    """E: the typical call."""
    return 1e3 * median(times_e())


def true_f():
    """F: the same prompt on both sides."""
    return prompt_speed(storyteller, STORY) / prompt_speed(f16, STORY)


def true_h():
    """H: a roof with as many threads as the kernel has."""
    roof = read_bandwidth(threads=env.thread_limits()[1], size=128 << 20, passes=6)
    return 100 * weights_read() / roof


# %% [markdown]
# G does not measure time. Which of the smaller files has the quality of F16? On this text a perplexity of at most 2 % more
# counts as equal, token by token (lab 06). The interval comes from a bootstrap: 400 times, draw as many tokens at random,
# with repetition, and choose the file again.

# %%
ids = heldout_ids(f16, passes=6)
nll = {}
with running("types", steps=len(sizes)) as step:
    for name in sizes:
        nll[name] = token_nll(load_quantised(name, MODEL), ids)
        print(f"{name:5} {sizes[name] / 1e6:.2f} MB, perplexity {math.exp(nll[name].mean()):.1f}")
        step()
shrink = fair_shrink(nll, sizes, "F16")
print(f"as good as F16, and smaller: {shrink}")

# %% [markdown]
# The others are measured six times each. Report and fair measurement run in turns, so that drift and other programs affect
# both.

# %%
TRUTHS = {
    "A": true_ab, "B": true_ab, "C": true_c, "D": true_d, "E": true_e, "F": true_f, "H": true_h,
}
ROUNDS = 6
pairs = {letter: [] for letter in TRUTHS}
STEPS = (ROUNDS + 1) * len(TRUTHS)
with watched_load(), running("reports and true values", steps=STEPS) as step:
    for truth in TRUTHS.values():
        truth()  # first runs do not count
        step()
    for turn in range(ROUNDS):
        print(f"round {turn + 1} of {ROUNDS}:", end="", flush=True)
        for letter, truth in TRUTHS.items():
            said, true = REPORTS[letter](), truth()
            pairs[letter].append((said, true))
            print(f" {letter} ×{said / true:.2g}", end="", flush=True)
            step()
        print()

# %% [markdown]
# The dot is the median of six ratios; the line goes from the smallest to the largest of them. With six pairs it contains the
# true median with a probability of 97 % (exercise 5 says why). A grey line contains 1: *cannot tell*. On this machine six
# pairs do not show an effect of the flaw.

# %%
ratios = {}
for letter, report in REPORTS.items():
    if letter == "G":
        fair = (shrink.high, shrink.middle, shrink.low)
        ratios[letter] = Interval(*(report() / true for true in fair))
    else:
        ratios[letter] = ratio_interval([said / true for said, true in pairs[letter]])
    predictions[letter].compare(ratios[letter].middle)  # without a prediction it asks for one here
# %%
said = {letter: made.recorded() for letter, made in predictions.items()}
said = {letter: ratio for letter, ratio in said.items() if ratio is not None}
title = "Reported values over true values"
show(ratio_intervals(ratios, title, "reported over true", said=said))

# %%
rows = []
for letter, ratio in ratios.items():
    of_both = zip(*pairs.get(letter, [(report_g(), shrink.middle)]), strict=True)
    numbers_of_both = [f"{median(side):.3g}" for side in of_both]
    rows.append((letter, *numbers_of_both, UNITS[letter], side_words(ratio.side)))
print(plain_table(("report", "says", "is", "unit", "verdict"), rows, right=(1, 2)))

# %% [markdown]
# *Too much* is not always in favour of the author: E is a number for a rival. Three remarks:
#
# * The size of an error depends on the machine. The more work one call queues, the larger the error of B. The more noise
#   there is, the larger that of D.
# * H may be right: with one core, or if one thread reads memory as fast as all together. Otherwise the share may exceed
#   100 %. That is a sure sign of an error, because no kernel is faster than the roofline.
# * G has no wrong measurement in it. The size is right, and the words "the same model" are not. Nor does "as good as F16" say
#   more than this: this text does not show a difference of more than 2 % (lab 06: KL divergence does).
#
# ## 3. Which statistic is wrong when
#
# A typical call takes 1. Each call is a little faster or slower (the noise), and now and then another program runs (the
# outliers, ten times as long). 2000 reports of *n* calls each are simulated, and the line goes from the 5th to the 95th of
# a hundred reports. Find settings where the mean is better than the median; where the best of *n* is better than both; and
# where all are wrong.


# %%
def reports(settings):
    """The intervals without widgets: settings in, figure out."""
    noise = Noise(settings["noise"] / 100, settings["outliers"] / 100)
    found = statistics_of_reports(noise, settings["repetitions"])
    calls, spread, share = (settings[name] for name in ("repetitions", "noise", "outliers"))
    title = f"Reports of {calls} calls, {spread} % noise, {share} % outliers"
    return ratio_intervals(found, title, "reported over true", ends=(0.3, 15.0))


# %% tags=["panel"]
panel = Panel(
    [
        IntSlider("repetitions", "repetitions", 1, 100, 10, "calls of a report"),
        IntSlider("noise", "noise, percent", 0, 40, 5, "of each call, up and down"),
        IntSlider("outliers", "outliers, percent", 0, 70, 5, "calls that take ten times as long"),
    ],
    reports,
).show()

# %% [markdown]
# The same without widgets, for 20 % noise and 5 % outliers:

# %% tags=["check-output"]
table = [
    (f"{count}", *(f"{e.middle:.2f} ({e.low:.2f} to {e.high:.2f})" for e in found.values()))
    for count in (1, 3, 10, 30, 100)
    for found in [statistics_of_reports(Noise(0.2, 0.05), count)]
]
print(plain_table(("calls", "one call", "best", "mean", "median"), table))

# %% [markdown]
# The best of *n* goes on falling with *n*: it is no property of the program, so never compare it with the best of another
# *n*. (If noise can only *add* time, the best is a good estimate of the minimum. But the clock of a processor also speeds
# up.) A larger *n* does not bring the mean nearer to the typical call; it only narrows its interval, around the wrong value.
# The median is right as long as less than half of the calls are disturbed. But if users wait for the outliers, the outliers
# matter: report p99 (lab 06), and say so.
#
# ### Exercise 3: correct speeds from a log
# `calls` is a log of a model: dictionaries with `prompt_tokens`, `cached_tokens` (of the prompt, found in the prefix cache),
# `generated_tokens`, `first_token` and `total` (seconds from the beginning of the call). The first call compiles. Return two
# numbers, each the median of the speeds of the other calls:
#
# * tokens a second of the prompt, for the tokens that were really computed;
# * tokens a second of the generated ones. The first of them comes at the end of the prompt.

# %% tags=["check-output"]
for call in recorded_calls(11)[:4]:
    print(call)


# %% tags=["exercise"]
def corrected(calls):
    """(Tokens a second of prompts, tokens a second of generated tokens)."""
    raise NotImplementedError


# %% tags=["solution"]
def corrected(calls):
    """(Tokens a second of prompts, tokens a second of generated tokens)."""
    prompts, generated = [], []
    for call in calls[1:]:
        prompts.append((call["prompt_tokens"] - call["cached_tokens"]) / call["first_token"])
        generated.append((call["generated_tokens"] - 1) / (call["total"] - call["first_token"]))
    return median(prompts), median(generated)


# %% [markdown] tags=["hint"]
# `calls[1:]`. For each call: prompt minus cached tokens over `first_token`; generated tokens minus one over `total` minus
# `first_token`. Then the median of each list.

# %% tags=["check"]
check.corrected(corrected)

# %% tags=["check-output"]
calls = recorded_calls(11)
tokens = sum(each["prompt_tokens"] + each["generated_tokens"] for each in calls)
naive = tokens / sum(each["total"] for each in calls)
speeds = attempt(corrected, calls)
print(f"all tokens over all seconds: {naive:.0f} tokens a second")
if isinstance(speeds, tuple):
    prompts, generated = speeds
    print(f"yours: {prompts:.0f} of prompts, {generated:.0f} of generated tokens")
else:
    print(speeds)

# %% [markdown]
# ## 4. Reports that may be compared
#
# ### Exercise 4: is this comparison fair?
# `a` and `b` are reports: dictionaries, in which settings may be missing. `studied` is the name of the one setting whose
# effect they are to show. Return a list of the names that make the comparison unfair (empty: it is fair):
#
# * each of `model`, `type`, `prompt_tokens`, `depth`, `threads`, `cache`, `statistic`, except the studied one: both reports
#   must state it, and it must be equal;
# * the studied setting: both must state it, and it must *differ*;
# * `repetitions`: at least 5 in both; every report has it, and the two numbers need not be equal;
# * `perplexity`: if the `type` is studied, both must state it (it need not be equal, but the reader must see the cost).


# %% tags=["exercise"]
def unfair(a, b, studied):
    """Names of what makes the comparison of two reports unfair."""
    raise NotImplementedError


# %% tags=["solution"]
def unfair(a, b, studied):
    """Names of what makes the comparison of two reports unfair."""
    reasons = []
    for name in ("model", "type", "prompt_tokens", "depth", "threads", "cache", "statistic"):
        is_stated = name in a and name in b
        is_equal = is_stated and a[name] == b[name]
        if not is_stated or is_equal == (name == studied):
            reasons.append(name)
    if min(a["repetitions"], b["repetitions"]) < 5:
        reasons.append("repetitions")
    if studied == "type" and not ("perplexity" in a and "perplexity" in b):
        reasons.append("perplexity")
    return reasons


# %% [markdown] tags=["hint"]
# Go through the seven settings. `name in a and name in b` says whether both state it. If not, it is a reason. If so: for the
# studied setting an *equal* value is a reason, for all others an *unequal* one.

# %% tags=["check"]
check.unfair(unfair)

# %%
prompts = {"Q8_0": STORY, "F16": STORY[:60]}
lengths = {name: len(storyteller.tokenizer.encode(text)) for name, text in prompts.items()}
common = {"model": model_name(MODEL), "depth": 0, "threads": cores}
common |= {"cache": "cold", "statistic": "median", "repetitions": 3}
sides = [common | {"type": name, "prompt_tokens": count} for name, count in lengths.items()]
print("report F:", attempt(unfair, *sides, "type"))

# %% [markdown]
# ## 5. Faster, slower, cannot tell
#
# Two programs, interleaved: `before[i]` and `after[i]` are the seconds of round *i*. The ratio `before[i] / after[i]` is
# the speed-up of a round. Times have outliers, so mean and standard deviation are not of much use. But this always holds:
# a ratio is below the true median with a probability of one half, like a coin. So sort the *n* ratios, and drop *k* at each
# end. The true median is below all that remain only if at most *k* of the coins show "below". With
#
# $$P(\text{at most } k \text{ of } n) = \sum_{i=0}^{k} \binom{n}{i} / 2^n \le 0.025$$
#
# and the same at the other end, the interval from the smallest to the largest of the rest contains the true median with a
# probability of at least 95 %, *for any kind of noise*.
#
# ### Exercise 5: a speed-up with its interval
# Return `(low, high, verdict)`: the interval with the largest *k* that is allowed; the verdict is 1 (faster) if all of it is
# above 1, -1 (slower) if all of it is below 1, else 0 (cannot tell). With fewer than 6 pairs even k = 0 is not allowed: return
# `(0.0, math.inf, 0)`.


# %% tags=["exercise"]
def speed_up(before, after):
    """(low, high, verdict) of the speed-up: 1 faster, -1 slower, 0 cannot tell."""
    raise NotImplementedError


# %% tags=["solution"]
def speed_up(before, after):
    """(low, high, verdict) of the speed-up: 1 faster, -1 slower, 0 cannot tell."""
    ratios = sorted(b / a for b, a in zip(before, after, strict=True))
    n = len(ratios)
    k, missed = -1, 1 / 2**n
    while missed <= 0.025:
        k += 1
        missed += math.comb(n, k + 1) / 2**n
    if k < 0:
        return 0.0, math.inf, 0
    low, high = ratios[k], ratios[-1 - k]
    return low, high, 1 if low > 1 else -1 if high < 1 else 0


# %% [markdown] tags=["hint"]
# `sum(math.comb(n, i) for i in range(k + 1)) / 2**n` is the probability. Try k = 0, 1, 2, ... as long as it is at most 0.025.
# Then `ratios[k]` and `ratios[-1 - k]` of the sorted ratios.

# %% tags=["check"]
check.speed_up(speed_up)

# %% [markdown]
# Your function on report D, with both seeds interleaved, 20 times. Is seed 2 the faster one?

# %%
turns = []
with watched_load(), running("rounds", steps=20) as step:
    for _ in range(20):
        turns.append((1 / generation_speed(seed=1), 1 / generation_speed(seed=2)))
        step()
found = attempt(speed_up, *zip(*turns, strict=True))
if isinstance(found, tuple):
    low, high, verdict = found
    words = "faster" if verdict > 0 else "slower" if verdict < 0 else "cannot tell"
    claim = median(said for said, _ in pairs["D"])
    print(f"seed 2 over seed 1: {words}, ×{low:.2f} to ×{high:.2f}; report D said ×{claim:.2f}")
    measurement("11", "seed 2 over seed 1, low end", low, "times")
else:
    print(found)
engine.close()

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Read what is between the two readings of the clock, and what is on the two sides of the fraction. Most flaws are visible there.
# * Warm up, wait for the result, repeat, take the median, and say how many runs there were.
# * Change one thing. Length, depth, threads, cache state and statistic belong into the report; what is not stated is not
#   known.
# * A speed without the quality, and a share of a roof without the threads of the roof, are incomplete.
# * Compare by pairs and report an interval. *Cannot tell* is a result.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | warm up, repeat | `llama-bench -r 5` (`--no-warmup` turns the first off) | `minillama bench -r 5`, the same |
# | length and depth | `llama-bench -p 512 -n 128 -d 0,2048` | the same |
# | threads | `llama-bench -t 1,2,4` | the same |
# | no prefix cache | `"cache_prompt": false` | the same; `cache_prompt=False` |
# | quality of a type | `llama-perplexity --kl-divergence` | `minillama perplexity --kl-divergence` |
# | two programs, interleaved | | `minillama bench --against path/to/llama-bench` |
#
# ## When you get an error
#
# * `a ratio is a finite positive number, not ...`: a report measured 0 seconds. The clock of this system is too coarse; make
#   `many` larger.
# * `the prompt has ... tokens, too many for a slot`: STORY is longer than before; shorten it, or raise `ctx_size`.
# * A line says that other programs used the cores: close them, and run the cell again.
# * B is near 1: this version of JAX runs small computations synchronously. The flaw is there, but without an effect.
# * A cell waits for another measurement on this machine: it says for which one, and goes on when that has ended.
