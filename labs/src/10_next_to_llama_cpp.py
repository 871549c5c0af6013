# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 10 · Next to llama.cpp
#
# "Twice as fast as llama.cpp." "The perplexity is the same." Such claims come from two programs, llama-bench and
# llama-perplexity, and from the choice of the two lines that are compared. In this lab you read both programs' output to
# the last digit: you recompute it, put it on a roofline, and find the comparisons that compare something else.
#
# You need no llama.cpp: real runs of it are recorded, with command, build, machine and date. If you have it, the same
# comparison runs here.
#
# | | |
# |---|---|
# | **Afterwards you can** | explain every column of llama-bench, recompute its numbers, put two programs on one roofline, refuse an unfair comparison, and compare two perplexities |
# | **Time** | 60 minutes |
# | **You should know** | lab 01 (roofline), lab 05 (cache), lab 06 (perplexity, pairs of tokens) |
# | **Runs on** | any laptop, a minute of computing at most, no network; 0.5 GB of free memory and disk for one measurement, otherwise the lab skips it |
# | **In llama.cpp** | `llama-bench -m M -p 512 -n 128 -d 0,2048 -o json`, `llama-perplexity -m M -f TEXT -c 256` |

# %%
import numpy as np

from minillama.lab import Dropdown, Panel, Prediction, running, show
from minillama.lab.checks import lab10 as check
from minillama.lab.experiments.quantised_storytellers import heldout_text, load_quantised
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.plots.roofline_plots import roofline
from minillama.lab.recorded.comparison_plots import (
    claims_table,
    joined_tables,
    load_words,
    own_dots,
    program_dots,
    rates_and_roof,
    ratio_words,
    share_words,
)
from minillama.lab.recorded.own_runs import (
    own_files,
    own_log_likelihoods,
    own_roof,
    own_rows,
    run_against,
    scored_places,
)
from minillama.lab.recorded.recorded_runs import (
    CACHE,
    DEPTH,
    LARGE,
    LLAMA,
    MODEL,
    OURS,
    PROGRAM,
    RESULTS,
    ROOF,
    SMALLER,
    decode_row,
    number,
    recorded,
    settings,
    trial_name,
)
from minillama.measure.tables import plain_table

MODEL = None  # or the path of your own GGUF file
records = recorded()
roof = records.roofs[ROOF]

# %% [markdown]
# ## 1. Predict first
#
# A Llama of 95 million random weights in Q8_0: 100 MB, larger than the caches of most processors. One machine, one thread;
# llama-bench and `minillama bench` in turns, with the same file and flags.
#
# * `pp512`: read a prompt of 512 tokens. Arithmetic is the bound.
# * `tg64`: write 64 tokens, one by one. Reading memory is the bound.

# %%
share = Prediction(
    "10",
    "llama.cpp's share of the roof, tg64",
    "tg64: how many percent of what one thread can read does llama-bench read?",
    "percent",
)
share.ask()

# %%
prompt = Prediction(
    "10",
    "minillama over llama.cpp, pp512",
    "pp512: tokens a second of minillama over those of llama.cpp?",
    "times",
)
prompt.ask()

# %%
decode = Prediction(
    "10",
    "minillama over llama.cpp, tg64",
    "tg64: tokens a second of minillama over those of llama.cpp?",
    "times",
)
decode.ask()

# %% tags=["solution"]
share.record(60)  # "some of the time goes into arithmetic and waiting"
prompt.record(0.5)  # "a Python program"
decode.record(0.8)  # "both wait for the same memory"

# %% [markdown]
# ## 2. The table
#
# The recorded machine, its runs, and what disturbed them:

# %%
print(f"{records.processor}, {records.cores} cores")
print(f"one thread reads {roof.bandwidth / 1e9:.1f} GB/s, ", end="")
print(f"and its products of weights in Q8_0 do {roof.flops / 1e9:.0f} GFLOP/s")
print(load_words(records), end="\n\n")
runs = [(run.command, run.date[:16], f"{run.other_load:.0%}") for run in records.speeds]
print(plain_table(("command", "UTC", "other load"), runs, right=(2,)))

# %% [markdown]
# llama-bench prints a table (`-o md`, the default). Its lines, as they were printed; headers and builds that are equal to
# those of the previous run are left out:

# %%
print(joined_tables([run.table for run in records.speeds if run.program == LLAMA]))

# %% [markdown]
# | column | meaning | trap |
# |---|---|---|
# | `model` | architecture, size class and type, from the metadata | the class comes from a table of layer counts: Qwen2.5 0.5B is `1B`, other shapes `?B`; the *name* of the file is not shown |
# | `size` | bytes of all tensors | one row of a token embedding is read for each token, unless it is also the head |
# | `params` | number of weights | |
# | `backend` | the device that computes; with a GPU, `ngl` is the number of layers there | |
# | `threads` | `-t` | |
# | `fa`, `type_k`, `n_batch` ... | only parameters that are varied, or differ from their default | **what is missing is the default, and defaults differ between builds** |
# | `test` | `pp512`: a prompt of 512 random tokens, logits of the last one. `tg128`: 128 passes of one random token. `@ d2048`: after 2048 tokens, which are not timed | no sampling, no tokeniser: not the speed of a chat |
# | `t/s` | mean ± deviation over `-r` repetitions, after a warm-up | 5 repetitions by default |
# | `build` | commit and number | a comparison between two builds compares builds |
#
# The last column is the one that is quoted. `-o json` has the times that it comes from, in `samples_ns`: nanoseconds of
# each repetition.
#
# ### Exercise 1: the rate and its ±
# Return what llama-bench prints: two numbers. Which mean is it, and which deviation? There are two ways to average a
# speed. Its source says (`tools/llama-bench/llama-bench.cpp`, shortened):
#
# ```cpp
# std::vector<double> get_ts() const {            // for each t of samples_ns
#     return 1e9 * n_tokens / t;
# }
# double avg_ts()   const { return ::avg(get_ts()); }
# double stdev_ts() const { return ::stdev(get_ts()); }   // 0 if v.size() <= 1
# // stdev: sqrt(sq_sum / (v.size() - 1) - mean * mean * v.size() / (v.size() - 1))
# ```


# %% tags=["exercise"]
def tokens_per_second(samples_ns, n_tokens):
    """Tokens a second and their deviation, as llama-bench prints them."""
    raise NotImplementedError


# %% tags=["solution"]
def tokens_per_second(samples_ns, n_tokens):
    """Tokens a second and their deviation, as llama-bench prints them."""
    rates = 1e9 * n_tokens / np.array(samples_ns)
    return rates.mean(), rates.std(ddof=1) if len(rates) > 1 else 0.0


# %% [markdown] tags=["hint"]
# `rates = 1e9 * n_tokens / np.array(samples_ns)`: one rate for each repetition. The second number is
# `rates.std(ddof=1)`; of a single repetition it is 0.

# %% tags=["check"]
check.tokens_per_second(tokens_per_second)


# %%
def recomputed(row):
    """A recorded row: printed, recomputed, and all tokens over the whole time."""
    samples, tokens = row["samples_ns"], row["n_prompt"] + row["n_gen"]
    got = attempt(tokens_per_second, samples, tokens)
    shown = "{:.2f} ± {:.2f}".format(*got) if isinstance(got, tuple) else str(got)
    printed = f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"
    return trial_name(row), printed, shown, f"{1e9 * tokens * len(samples) / sum(samples):.2f}"


rows = [row for run in records.speeds if run.program == LLAMA for row in run.rows]
rows.sort(key=lambda row: -row["stddev_ts"] / row["avg_ts"])
head = ("test", "llama-bench", "yours", "all tokens / all time")
print(plain_table(head, [recomputed(row) for row in rows], right=(1, 2, 3)))

# %% [markdown]
# The first line has the largest ± for its speed. The mean of rates is never below "all tokens over all time", and the
# more the repetitions differ, the larger the gap: a slow repetition counts by its rate, not by its seconds. A quoted
# speed with a ± of a few percent is safe from this; one without a ± is not.
#
# And ± is the deviation of *single* repetitions. The error of the mean of n of them is smaller by √n; but a machine that
# gets slower from minute to minute moves all of them together, and ± does not show it. Therefore lab 08 measures in turns.
#
# ## 3. One roof for both programs
#
# A decode step reads all weights, and keys and values of every position before it. Bytes a token times tokens a second
# is the bandwidth that a program uses. Weights and cache are the same for both programs, and so are the bytes.
#
# ### Exercise 2: the share of the roof
# `row` has `avg_ts`, `n_gen`, `n_depth`, `weight_bytes` (that a token reads) and `cache_bytes` (of *one* position).
# Step i of the test (1 to `n_gen`) reads the cache of `n_depth + i` positions. `bandwidth` is in bytes a second. Return
# the share: 1 for a program that uses all of the bandwidth.


# %% tags=["exercise"]
def share_of_roof(row, bandwidth):
    """Bytes a second of a decode test, over the bandwidth."""
    raise NotImplementedError


# %% tags=["solution"]
def share_of_roof(row, bandwidth):
    """Bytes a second of a decode test, over the bandwidth."""
    positions = row["n_depth"] + (row["n_gen"] + 1) / 2
    return (row["weight_bytes"] + positions * row["cache_bytes"]) * row["avg_ts"] / bandwidth


# %% [markdown] tags=["hint"]
# The mean of 1, 2, ..., n is (n + 1) / 2, so an average step sees `n_depth + (n_gen + 1) / 2` positions. Bytes a token:
# weights, and positions × cache_bytes.

# %% tags=["check"]
check.share_of_roof(share_of_roof)

# %%
lines, shares = [], []
for program in (LLAMA, OURS):
    for depth in (0, DEPTH):
        row = decode_row(program, LARGE, depth)
        got = attempt(share_of_roof, row, roof.bandwidth)
        if isinstance(got, float):
            shares.append(got)
        shown = f"{got:.0%}" if isinstance(got, float) else str(got)
        lines.append((program, f"tg64 @ d{depth}", f"{row['avg_ts']:.1f}", shown))
print(plain_table(("program", "test", "t/s", "share of the roof"), lines, right=(2, 3)))
print(share_words(shares))
got = attempt(share_of_roof, decode_row(LLAMA, LARGE), roof.bandwidth)
if isinstance(got, float):
    show(share.compare(100 * got, model=100))

# %% [markdown]
# Now both on the roof of **their** machine. A speed without its roof says nothing about a program: on your machine, with
# another roof, the same program has another speed.

# %%
dots = program_dots(records, LARGE, (0, DEPTH))
show(roofline(roof, dots, "Both programs on the recorded machine's roofline"))

# %% [markdown]
# The slope is the memory. The flat part is a product of 512 rows that minillama's own kernel computes, so a program with
# a better kernel may be above it.

# %% [markdown]
# ## 4. Fair or not
#
# Six claims about the recorded rows; all numbers are right. In a fair comparison the two rows differ in what is compared,
# and in nothing else. **Two are unfair.** Look for them by eye first.


# %%
def claim(text, compared, *picked):
    """A claim about two recorded rows; each row is a program and what finds it."""
    rows = tuple(settings(name, records.row(name, *words, **more)) for name, words, more in picked)
    return {"claim": text, "compared": compared, "rows": rows}


TG, PP, DEEP = (LARGE, "tg64"), (LARGE, "pp512"), (LARGE, "tg64", DEPTH)
TWO, SMALL = (LLAMA, PP, {"threads": 2}), (LLAMA, (SMALLER, "pp512"), {})
claims = [
    claim("a second thread for a prompt", ("n_threads",), (LLAMA, PP, {}), TWO),
    claim("Q8_0 in place of Q4_0", MODEL, SMALL, TWO),
    claim("minillama in place of llama.cpp", PROGRAM, (LLAMA, TG, {}), (OURS, TG, {})),
    claim("a cache in 8 bits", CACHE, (LLAMA, DEEP, {}), (LLAMA, DEEP, {"type_k": "q8_0"})),
    claim("no flash attention", ("flash_attn",), (LLAMA, TG, {}), (LLAMA, DEEP, {"flash_attn": 0})),
    claim("1024 tokens before the text", ("n_depth",), (LLAMA, TG, {}), (LLAMA, DEEP, {})),
]
print(claims_table(claims))

# %% [markdown]
# ### Exercise 3: find the unfair ones
# A claim is a dict: `compared` has the names of the settings that are compared, `rows` the two rows, which are dicts with
# the same names. `avg_ts` and `stddev_ts` are results, all other names are settings. Return the places of the unfair
# claims, in a list.


# %% tags=["exercise"]
def unfair(claims):
    """Places of the claims whose rows differ in more than what is compared."""
    raise NotImplementedError


# %% tags=["solution"]
def unfair(claims):
    """Places of the claims whose rows differ in more than what is compared."""
    found = []
    for place, each in enumerate(claims):
        a, b = each["rows"]
        names = set(a) - {"avg_ts", "stddev_ts"} - set(each["compared"])
        if any(a[name] != b[name] for name in names):
            found.append(place)
    return found


# %% [markdown] tags=["hint"]
# `set(a) - {"avg_ts", "stddev_ts"} - set(claim["compared"])` are the settings that must be equal. `enumerate(claims)`
# gives the places.

# %% tags=["check"]
check.unfair(unfair)

# %%
found = attempt(unfair, claims)
for place in found if isinstance(found, list) else []:
    a, b = claims[place]["rows"]
    allowed = {*RESULTS, *claims[place]["compared"]}
    ratio = b["avg_ts"] / a["avg_ts"]
    print(f"{place}: {claims[place]['claim']}: ×{ratio:.2f}, and more than that differs:")
    for name in a:
        if a[name] != b[name] and name not in allowed:
            print(f"   {name}: {a[name]} and {b[name]}")
if not isinstance(found, list):
    print(found)

# %% [markdown]
# Each has a fair form among the recorded rows:

# %%
large, small = (records.row(LLAMA, name, "pp512") for name in (LARGE, SMALLER))
without, default = (records.row(LLAMA, *DEEP, flash_attn=flash) for flash in (0, -1))
print(f"Q8_0 in place of Q4_0, both with 1 thread: {ratio_words(large, small)}")
print(f"no flash attention, both at depth 1024: {ratio_words(without, default)}")

# %% [markdown]
# The two programs, fairly: the same file, threads, batch, cache and test, in turns. How far are their means apart,
# compared with what the repetitions allow? (± here is the error of the ratio, from both programs' deviations.)

# %%
for test in ("pp512", "tg64"):
    for depth in (0, DEPTH):
        ours, theirs = (records.row(program, LARGE, test, depth) for program in (OURS, LLAMA))
        print(f"minillama over llama.cpp, {test} @ d{depth}: {ratio_words(ours, theirs)}")


def ratio_of(words):
    """Minillama's recorded speed over llama.cpp's."""
    ours, theirs = (number(records.row(name, *words), "avg_ts") for name in (OURS, LLAMA))
    return ours / theirs


show(prompt.compare(ratio_of(PP)))

# %%
show(decode.compare(ratio_of(TG), model=1.0))

# %% [markdown]
# *Model says*: 1, because both read the same bytes from the same memory.
#
# One turn is one turn: the machine drifts between the programs of a turn too. `minillama bench --against` makes several,
# and shows the smallest and the largest ratio.

# %% [markdown]
# ## 5. Here
#
# Your turn: the same tests, on your machine, on your roof. If there is room, with the same file of random weights; the
# storyteller fits the caches of a processor, where the slope does not hold. A `MODEL` of your own is measured too; the other
# sections compare with recorded runs, so they stay with the recorded models. Some seconds:

# %%
files = own_files(MODEL)
with running("memory and arithmetic of one thread", seconds=3):
    here = own_roof()
mine = own_rows(files)
for row in mine:
    speed = f"{row['avg_ts']:.1f} ± {row['stddev_ts']:.1f} tokens a second"
    print(f"{row['model_filename']:24} {trial_name(row):6} {speed}")
measurement("10", "memory bandwidth here", here.bandwidth / 1e9, "GB/s")
show(roofline(here, own_dots(mine), "minillama on this machine's roofline"))

# %% [markdown]
# If you have a `llama-bench`, put its path here: both programs run in turns (A B A B), each round is a ratio, and the
# result is the median of these ratios. This is the only comparison of speeds in this lab that is about *your* machine.

# %%
BENCH = None  # "/path/to/llama.cpp/build/bin/llama-bench", or shutil.which("llama-bench")
run_against(BENCH, files, ("-p", "512", "-n", "64", "-t", "1", "--rounds", "3"))

# %% [markdown]
# ## 6. Perplexity: which tokens are scored
#
# The storyteller in F16 on the held-out stories, llama-perplexity's output (`[1]`, `[2]`, ...: the perplexity so far):

# %%
run = records.perplexity("f16")
print(f"$ {run.command}\n{run.build}, {run.date[:10]}")
print(run.output[0], run.output[1][:90] + "...", run.output[-1], sep="\n")

# %% [markdown]
# * `n_ctx=256`: the text is cut into **windows** of 256 tokens. What is left over at its end is not read.
# * BOS replaces the first token of each window if the model has one. So that token is not the text's.
# * Only the **second half** is scored, so that every scored token has half a window before it. The logits at position i
#   are about token i + 1: positions 128 to 254 score the tokens 129 to 255, 127 in each window.
# * `PPL = ... +/- ...`: exp of the mean surprise, and its standard error, as if tokens were independent.
#
# ### Exercise 4: a perplexity from log likelihoods
# `log_likelihoods[i]` is ln p of token i of the text, given the tokens before it *in its window*; the first token of each
# window has none (nan). Return PPL and its error for windows of `ctx` tokens, by these rules.


# %% tags=["exercise"]
def perplexity_of(log_likelihoods, ctx):
    """Perplexity and its standard error, by llama-perplexity's rules."""
    raise NotImplementedError


# %% tags=["solution"]
def perplexity_of(log_likelihoods, ctx):
    """Perplexity and its standard error, by llama-perplexity's rules."""
    whole = len(log_likelihoods) // ctx * ctx
    windows = log_likelihoods[:whole].reshape(-1, ctx)
    nll = -windows[:, ctx // 2 + 1 :].reshape(-1)
    ppl = np.exp(nll.mean())
    return ppl, ppl * nll.std(ddof=1) / np.sqrt(len(nll))


# %% [markdown] tags=["hint"]
# `windows = log_likelihoods[: len(log_likelihoods) // ctx * ctx].reshape(-1, ctx)`, and of each window the columns from
# `ctx // 2 + 1` on. The error as in lab 06: PPL times the deviation (ddof=1) over √n.

# %% tags=["check"]
check.perplexity_of(perplexity_of)

# %% [markdown]
# Now your own run next to the recorded one: the same file, text and `-c`, with minillama.

# %%
CTX, TYPES = 256, ("F16", "Q8_0", "Q4_0")
ids = load_quantised("F16").tokenizer.encode(heldout_text())
own = own_log_likelihoods(TYPES, ids, CTX)


def shown(value):
    """A perplexity with its error, or why there is none."""
    return "{:.4f} ± {:.2f}".format(*value) if isinstance(value, tuple) else str(value)


lines = []
for name, values in own.items():
    run = records.perplexity(name.lower())
    saved = attempt(perplexity_of, run.in_text(), CTX)
    lines.append((name, shown(run.final), shown(saved), shown(attempt(perplexity_of, values, CTX))))
head = ("storyteller", "llama-perplexity printed", "yours, of its base file", "yours, of minillama")
print(plain_table(head, lines, right=(1, 2, 3)))

# %% [markdown]
# The middle column is a surprise. llama-perplexity does not print the log likelihood of each token, but
# `--kl-divergence-base FILE` saves all of them, in 16 bits: from the likeliest token down to **16 nats** below it, and no
# further. The few tokens that are less likely than that are too likely in the file, and they are the expensive ones.
# Two numbers of one program for one file and text, and they differ by more than F16 and Q8_0 do.
#
# The outer columns do not agree to the last digit either. Each of these alone changes a perplexity:
#
# | cause | effect |
# |---|---|
# | a floor of the log likelihoods | the least likely tokens become cheap |
# | `-c` | more context before each scored token, and other tokens are scored: another number, of the same model |
# | BOS | a window with and without it begins differently |
# | type of the cache | `-ctk q8_0` rounds keys |
# | arithmetic | llama.cpp rounds activations to 8 bits for its products with quantised weights; minillama's kernels round elsewhere |
# | which tokens are scored | all, the second half, or with a stride: Hugging Face's usual script scores others |
#
# The error bars are almost 20 wide on each side. Do they show that F16 and Q4_0, or two programs, are equal? No (lab 06):
# most of a bar is the text, and the text is the same. Subtract **token by token**, if the tokens are the same ones.
#
# ### Exercise 5: better, worse, or cannot tell
# `a` and `b` have `tokens` (ids of the scored tokens) and `log_likelihoods`, two arrays. Return, as a string,
# `"not comparable"` if they did not score the same tokens; else `"better"` or `"worse"` if b is that by more than two
# standard errors of the mean difference (ddof=1); else `"cannot tell"`.


# %% tags=["exercise"]
def differ(a, b):
    """Is b "better", "worse", "cannot tell" or "not comparable"?"""
    raise NotImplementedError


# %% tags=["solution"]
def differ(a, b):
    """Is b "better", "worse", "cannot tell" or "not comparable"?"""
    if not np.array_equal(a.tokens, b.tokens):
        return "not comparable"
    change = b.log_likelihoods - a.log_likelihoods
    error = change.std(ddof=1) / np.sqrt(len(change))
    if abs(change.mean()) <= 2 * error:
        return "cannot tell"
    return "better" if change.mean() > 0 else "worse"


# %% [markdown] tags=["hint"]
# `np.array_equal(a.tokens, b.tokens)` first. Then `change = b.log_likelihoods - a.log_likelihoods`; a *larger* log
# likelihood is less surprise, which is better.

# %% tags=["check"]
check.differ(differ)


# %%
def scored(values, ctx):
    """Scored tokens of the held-out stories, and their log likelihoods."""
    places = scored_places(len(ids), ctx)
    return check.Scored(np.array(ids)[places], values[places])


# The same floor for both programs: 16 nats below the likeliest token.
kept = own_log_likelihoods(TYPES, ids, CTX, floor=16.0)
ours = {name: scored(values, CTX) for name, values in kept.items()}
theirs = {name: scored(records.perplexity(name.lower()).in_text(), CTX) for name in TYPES}
other = scored(records.perplexity("f16", 512).in_text(), 512)
pairs = {
    "llama.cpp: Q8_0 / F16": (theirs["F16"], theirs["Q8_0"]),
    "llama.cpp: Q4_0 / F16": (theirs["F16"], theirs["Q4_0"]),
    "minillama: Q4_0 / F16": (ours["F16"], ours["Q4_0"]),
    "F16: minillama / llama.cpp": (theirs["F16"], ours["F16"]),
    "Q8_0: minillama / llama.cpp": (theirs["Q8_0"], ours["Q8_0"]),
    "Q4_0: minillama / llama.cpp": (theirs["Q4_0"], ours["Q4_0"]),
    "llama.cpp, F16: -c 512 / -c 256": (theirs["F16"], other),
}
lines = []
for name, (a, b) in pairs.items():
    change = b.log_likelihoods - a.log_likelihoods if len(a.tokens) == len(b.tokens) else None
    error = None if change is None else change.std(ddof=1) / np.sqrt(len(change))
    apart = "-" if change is None else f"{-100 * change.mean():+.2f} ± {100 * error:.2f} %"
    lines.append((name, apart, str(attempt(differ, a, b))))
print(plain_table(("b / a, token by token", "PPL, b over a", "verdict"), lines))
for name in TYPES:
    ratio = np.exp(theirs[name].log_likelihoods.mean() - ours[name].log_likelihoods.mean())
    measurement("10", f"PPL of minillama over llama.cpp, {name}", float(ratio), "times")

# %% [markdown]
# The difference of the two means of ln p is ln of the ratio of the perplexities, so its error is that of the ratio.
# (llama-perplexity prints this as `Mean ln(PPL(Q)/PPL(base))`, with `--kl-divergence`; the recorded log likelihoods are
# from its base file.)
#
# ## 7. Try it yourself: which test, which depth
#
# Choose a test and a depth. Which program is nearer to its roof, and where? At depth 0 the figure also has your own run,
# with your roof.


# %%
def compared(settings):
    """The bars without widgets: settings in, figure out."""
    return rates_and_roof(records, LARGE, settings["test"], int(settings["depth"]), mine, here)


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown("test", "test", ("tg64", "pp512"), "tg64", "generation or prompt"),
        Dropdown("depth", "-d", ("0", str(DEPTH)), "0", "tokens before the test, not timed"),
    ],
    compared,
).show()

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * `t/s` of llama-bench is the mean of rates ± their sample deviation. Tokens over time, a median, or the best run are
#   other numbers.
# * The table shows parameters only if they differ from a default. Compare JSON, not tables, and let a program look for
#   the second difference.
# * A speed belongs on the roof of the machine that made it. The share of the roof is the number that you can compare with
#   another machine's.
# * A perplexity belongs to model, text, `-c`, BOS and scored tokens. Compare two of them by pairs, on the same tokens, or
#   not at all. "Cannot tell" is a result.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | speed of prompt and generation | `llama-bench -m M -p 512 -n 128` | `minillama bench -m M -p 512 -n 128` |
# | after some context | `llama-bench -m M -d 0,2048` | `minillama bench -m M -d 0,2048` |
# | all fields and samples | `llama-bench -o json`, `-o jsonl`, `-o csv`, `-o sql` | the same |
# | table and JSON of one run | `llama-bench -o json -oe md` | the same |
# | both in turns | | `minillama bench -m M --against path/to/llama-bench` |
# | with the roof | | `minillama bench -m M --roofline` |
# | before and after a change | | `minillama bench --compare before.json` |
# | perplexity | `llama-perplexity -m M -f TEXT -c 256` | `minillama perplexity -m M -f TEXT -c 256` |
# | pairs of tokens | `--kl-divergence-base FILE`, then `--kl-divergence` | the same |
# | a random model of a real shape | | `minillama synth qwen2.5-0.5b --type Q4_0` |
#
# ## When you get an error
#
# * `no recorded run of ...`: that combination was not recorded; the table of section 2 has all of them.
# * `--against ...: no such program`: BENCH is the path of the *file* llama-bench, not of its folder.
# * `your function changed its input`: work on copies; `reshape` of a slice is fine, assigning to it is not.
# * Only the storyteller was measured: there was less than 0.5 GB of free memory or disk.
