# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 12 · The report
#
# You have measured. Now decide. A deployment is a choice among things that cannot all be had: speed for one or speed for many, quality or bytes, a first token soon or a long
# context. A report that is worth reading names the target, puts numbers on it, and defends each choice with a ratio that was measured on this machine, including the
# price. This notebook gathers what all labs recorded, asks you for the decisions, and writes **one HTML file** that needs nothing else to be read.
#
# | | |
# |---|---|
# | **Afterwards you can** | turn measurements into a decision, and defend it: a target with numbers, trade-offs with gains and prices, predictions looked back at, gaps named |
# | **Time** | 90 minutes, of which 70 are thinking and writing |
# | **You should know** | the labs you did; the report says honestly which you did not |
# | **Runs on** | any laptop, half a minute of computing, no network |
# | **In llama.cpp** | `llama-bench -o json`, `-ctk q8_0 -ctv q8_0`, `llama-batched-bench`; what the numbers are *for* no program says |

# %%
import logging
from pathlib import Path

import minillama as ml
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.lab import Dropdown, Panel, Prediction, Slider, show
from minillama.lab.checks import lab12 as check
from minillama.lab.experiments.counted_passes import big_model, decode_speeds, pass_seconds
from minillama.lab.grading.check import attempt
from minillama.lab.grading.decisions import TARGETS, Essay, Limit, LookBack, Ratio, Target, TradeOff, decide
from minillama.lab.grading.lab_record import measurement
from minillama.lab.grading.lab_results import TITLES, measured, read_results
from minillama.lab.grading.report_html import build_report, calibration, save_figure
from minillama.lab.plots.lab_plots import bars
from minillama.model import cache_bytes

logging.getLogger("minillama").setLevel(logging.ERROR)
RESULTS = Path("results")
MODEL = None  # or the path of the file that you would deploy, "my-model.gguf"

# %% [markdown]
# ## 1. One run of its own
#
# Ratios need both of their numbers from one run on one machine. So here is a small run, of the model that you want to deploy (`MODEL` above), or of 73 MB of random
# weights. First say something:

# %%
sixteen = Prediction(
    "12",
    "sixteen at a time over one",
    "Sixteen tokens of sixteen users in one pass: how many times as many tokens a second as one alone?",
    "times",
)
sixteen.ask()

# %% tags=["solution"]
sixteen.record(16)  # "the weights are read once for all of them"

# %%
llm = ml.load(MODEL or big_model(), ctx_size=2048, progress=False)
DEPTH = 1000
for kind in ("f16", "q8_0"):
    types = read_cache_types(kind, kind)
    ((_, rate),) = decode_speeds(llm, (DEPTH,), types)
    measurement("12", f"decoding, cache {kind}", rate, "tokens/s")
    measurement("12", f"cache, {kind}", cache_bytes(llm.config, DEPTH, types) / 1e6, "MB")
for name, size in (("one at a time", 1), ("sixteen at a time", 16)):
    seconds = pass_seconds(llm, size)
    measurement("12", f"{name}, all together", size / seconds, "tokens/s")
    measurement("12", f"{name}, a token", 1e3 * seconds, "ms")
prompt = list(range(3, 131))
for _ in range(2):  # the first time compiles
    timings = llm.generate(prompt, n=2, temp=0.0, ignore_eos=True).timings
measurement("12", "first token behind 128", 1e3 * timings.first_token, "ms")
measurement("12", "memory", (llm.memory.weights + llm.memory.cache + llm.memory.compute) / 1e6, "MB")

results = read_results(RESULTS)
gain = (
    measured(results, "12", "sixteen at a time, all together").value
    / measured(results, "12", "one at a time, all together").value
)
show(sixteen.compare(gain, model=16.0))

# %% [markdown]
# All that is on record, of this run and of the labs in this folder. These names are what the exercises below refer to:

# %%
results = read_results(RESULTS)
for lab, title in TITLES.items():
    if lab not in results:
        print(f"lab {lab} {title}: not done here")
        continue
    print(f"lab {lab} {title}: {len(results[lab].measurements)} measurements")
    for name, value in results[lab].measurements.items():
        print(f"      {name!r}: {value.value:.4g} {value.unit}")

# %% [markdown]
# ## 2. The target
#
# Three of many. Choose one, or name your own:

# %% tags=["check-output"]
for name, what in TARGETS.items():
    print(f"{name:16} {what}")

# %% [markdown]
# ### Exercise 1: a target with numbers
# "Fast enough" is no target. Return a `Target(name, limits)` with **two limits or more**, each a `Limit(lab, measurement, at_least=...)` or `at_most=...` on a measurement of the list
# above. Where do the numbers come from? People read some five words a second, that is seven tokens; they get restless after a second without an answer; a laptop with 8 GB has
# perhaps 4 to spare. *Set them before you look whether they are met.*


# %% tags=["exercise"]
def target() -> Target:
    """What the deployment is for, and when it is good enough."""
    raise NotImplementedError


# %% tags=["solution"]
def target() -> Target:
    """What the deployment is for, and when it is good enough."""
    return Target(
        "chat on a laptop",
        (
            Limit("12", "decoding, cache f16", at_least=7.0),  # tokens/s: as fast as people read
            Limit("12", "first token behind 128", at_most=1000.0),  # ms
            Limit("12", "memory", at_most=4000.0),  # MB
        ),
    )


# %% [markdown] tags=["hint"]
# `return Target("batch", (Limit("12", "sixteen at a time, all together", at_least=100), Limit(...)))`. Copy the names from the list above, with every comma.

# %% tags=["check"]
check.target(target)

# %% [markdown]
# ### Exercise 2: met, missed or not measured
# Return `"met"`, `"missed"` or `"not measured"`. `value` is `None` where nothing was measured, `at_least` and `at_most` are `None` where there is no such limit. A limit that is just
# reached is met.


# %% tags=["exercise"]
def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """How a measurement stands to its limits."""
    raise NotImplementedError


# %% tags=["solution"]
def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """How a measurement stands to its limits."""
    if value is None:
        return "not measured"
    if at_least is not None and value < at_least:
        return "missed"
    if at_most is not None and value > at_most:
        return "missed"
    return "met"


# %% [markdown] tags=["hint"]
# Begin with `if value is None`. Then ask each limit, if there is one, whether the value lies on the wrong side. Beware of `if value:` and `if at_least:`, for 0 is a number.

# %% tags=["check"]
check.verdict(verdict)

# %%
chosen = attempt(target)
decide("target", chosen)
if isinstance(chosen, Target):
    print(chosen.name)
    for limit in chosen.limits:
        value = measured(results, limit.lab, limit.measurement)
        got = attempt(verdict, value.value if value else None, limit.at_least, limit.at_most)
        print(f"  {limit.measurement}: {value.value:.4g} {value.unit}" if value else limit.measurement, "->", got)
else:
    print("target:", chosen)

# %% [markdown]
# Far within all limits? Then the target is too easy for this model, and a larger, better one would be the choice: that is a result too. How far, as a picture. A slider says how much *larger* than
# the measured one the model may be, if speed and memory go with its bytes (lab 01); *the limits* are those of exercise 1.

# %%
EASY = (Limit("12", "decoding, cache f16", at_least=7.0), Limit("12", "memory", at_most=4000.0))


def margins(settings):
    """How many times better than its limit each measurement is, for a model so many times as large."""
    limits = chosen.limits if isinstance(chosen, Target) else EASY
    names, values = [], []
    for limit in limits:
        value = measured(results, limit.lab, limit.measurement)
        if value is None or value.value <= 0:
            continue
        scale = settings["larger"] if settings["goes"] == "with its bytes" else 1.0
        names.append(limit.measurement)
        values.append(
            (value.value / limit.at_least if limit.at_least else limit.at_most / value.value) / scale
        )
    title = f"Times better than the limit, for a model {settings['larger']:g} times as large"
    return bars(names, values, title, "1 is just met", logarithmic=True)


panel = Panel(
    [
        Slider("larger", "times as large", 1.0, 100.0, 1.0, 1.0, "the model's file, against the measured one"),
        Dropdown("goes", "speed and memory", ("with its bytes", "stay"), "with its bytes", "what the model of a model is"),
    ],
    margins,
).show()
kept = save_figure("12", "margins", margins({"larger": 1.0, "goes": "stay"}))  # goes into the report

# %% [markdown]
# ## 3. Trade-offs
#
# ### Exercise 3: trade-offs with measured ratios
# Return a tuple of **two or more** `TradeOff(choice, gain, cost, because)`. `gain` and `cost` are each a `Ratio(lab, before, after)` of two measurements of one lab in the same unit, without the
# change and with it. `because` is a sentence: is it right *for your target*? A trade-off may well be one that you decide *against*.


# %% tags=["exercise"]
def trade_offs() -> tuple[TradeOff, ...]:
    """What could be changed, what it gains, what it costs, and what follows."""
    raise NotImplementedError


# %% tags=["solution"]
def trade_offs() -> tuple[TradeOff, ...]:
    """What could be changed, what it gains, what it costs, and what follows."""
    return (
        TradeOff(
            "keys and values in q8_0",
            gain=Ratio("12", "cache, f16", "cache, q8_0"),
            cost=Ratio("12", "decoding, cache f16", "decoding, cache q8_0"),
            because="Against it: the cache is small beside the weights, memory is not what this target lacks, "
            "and every token would have to be unpacked.",
        ),
        TradeOff(
            "sixteen users in one pass",
            gain=Ratio("12", "one at a time, all together", "sixteen at a time, all together"),
            cost=Ratio("12", "one at a time, a token", "sixteen at a time, a token"),
            because="Against it for chat on a laptop, where one person waits for each token; for batch it is the "
            "first thing to do.",
        ),
    )


# %% [markdown] tags=["hint"]
# `Ratio("12", "cache, f16", "cache, q8_0")` is what the q8_0 cache takes of the f16 one. Both names come from the list in section 1, and both measurements have one unit.

# %% tags=["check"]
check.trade_offs(trade_offs)

# %%
offered = attempt(trade_offs)
decide("trade-offs", offered)
if isinstance(offered, tuple):
    for each in offered:
        print(f"{each.choice}: gain {each.gain.times(results):.2f} times, price {each.cost.times(results):.2f} times")
else:
    print("trade-offs:", offered)

# %% [markdown]
# ## 4. Predictions, looked back at
#
# Every dot is a number that you said before you measured. On the diagonal you were right; a dot above it promised too much.

# %%
results = read_results(RESULTS)
show(calibration(results))

# %% [markdown]
# ### Exercise 4: a prediction looked back at
# The furthest dot is the most valuable: there you learnt something. Return `LookBack(lab, prediction, because)` about one that was both said and measured. `because` says what was wrong in the
# thinking, or why it was right, in a sentence.


# %% tags=["exercise"]
def look_back() -> LookBack:
    """A prediction, and what its error taught."""
    raise NotImplementedError


# %% tags=["solution"]
def look_back() -> LookBack:
    """A prediction, and what its error taught."""
    return LookBack(
        "12",
        "sixteen at a time over one",
        "I thought of the bytes alone. They are read once, but the arithmetic of sixteen tokens is sixteen times as "
        "much, and past the ridge of the roofline it is what takes the time.",
    )


# %% [markdown] tags=["hint"]
# `LookBack("12", "sixteen at a time over one", "I thought that ...")`. You have to have recorded a prediction (section 1, or any lab) and run the cell that measures it.

# %% tags=["check"]
check.look_back(look_back)

# %%
decide("look back", attempt(look_back))

# %% [markdown]
# ## 5. In your own words
#
# Three fields. What you write goes into the report as it stands. (Without widgets: `recommendation.record("...")`.)

# %%
recommendation = Essay("1 recommendation", "What do you recommend, to whom, and what would change your mind?")
bottleneck = Essay("2 bottleneck", "What limits it: memory, arithmetic, or overhead? Which numbers say so?")
gaps = Essay("3 gaps", "What did you not measure, and how could that turn the recommendation round?")
for essay in (recommendation, bottleneck, gaps):
    essay.ask()

# %% tags=["solution"]
recommendation.record(
    "For one person at a laptop: this model as it is, cache in f16, one pass a token. It meets its limits with room to "
    "spare, so a model several times as large would be better still; speed falls with its bytes. I should change my mind "
    "when several people share the machine."
)
bottleneck.record(
    "Memory: a pass of sixteen tokens takes far less than sixteen passes of one, which can only be where the weights' bytes "
    "are what one waits for."
)
gaps.record(
    "The weights are random, so nothing is said about quality; perplexity of the real file would have to be measured (lab 06)."
    " One machine, otherwise idle, plugged in."
)

# %% [markdown]
# ## 6. The report
#
# Run this cell again whenever something changed. Open `report.html` with a double click; it needs no network, and it can be sent as it is.

# %%
report = attempt(build_report, RESULTS, Path("report.html"))
print(f"{report}: {report.stat().st_size / 1e6:.1f} MB" if isinstance(report, Path) else report)

# %% [markdown]
# What a reader looks for (25 points; the last column of the report's rubric says what is on record of each):
#
# | criterion | what a good report has | points |
# |---|---|---|
# | Target | says for whom, in numbers, and the numbers fit the purpose | 4 |
# | Trade-offs | each has a gain and a price, measured in one run, and a reason that uses the target | 6 |
# | Honest measuring | compiling apart, several repetitions, one change at a time, same machine | 4 |
# | The roofline | decoding is compared with its bound, and the rest of the time is explained | 3 |
# | Predictions | made before measuring; one is looked back at and what was wrong in the thinking is named | 3 |
# | Words | a reader who was not there could decide on them | 3 |
# | Gaps | what was not done or not measured is said | 1 |
# | Exercises | of the labs that were done | 1 |
#
# That the numbers are *high* is worth no point. A slow machine can have an excellent report.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * A target comes before the measurements, and has numbers with a side: at least, at most.
# * Every gain has a price. If you have not found it, you have not measured it.
# * Ratios of one run on one machine travel; tokens a second do not.
# * What you did not do belongs into the report. A gap that is named is information, a gap that is hidden is a mistake.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | numbers for a report | `llama-bench -o json` | `minillama bench -o json`, with bytes and operations of a token |
# | several users in one pass | `llama-batched-bench` | `pass_seconds(llm, 16)` |
# | cache of half the bytes | `-ctk q8_0 -ctv q8_0` | the same |
# | the report | none | `build_report(Path("results"), Path("report.html"))` |
#
# ## When you get an error
#
# * `... is not readable json`, `... is ..., not a number`: a file in `results/` was changed or cut off. Delete it, or run its lab again; the others are kept.
# * `lab 12 has no measurement ... on record`: the names must be those of section 1, letter for letter. Run section 1 first.
# * `no folder results`: the notebook runs elsewhere. All labs have to run in one folder, for the results lie beside the notebook.
# * The figures in `report.html` stay empty: the browser forbids scripts in files. The same numbers are below each of them as text.
