# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 12 · The report
#
# You have measured. Now decide. A deployment is a choice between goals that exclude each other: speed for one user or
# for many, quality or bytes, a fast first token or a long context. A useful report names the target, gives it numbers,
# and defends each choice with a ratio that was measured on this machine, including the cost. This notebook collects the
# records of all labs, asks you for the decisions, and writes **one self-contained HTML file**.
#
# | | |
# |---|---|
# | **Afterwards you can** | turn measurements into a decision and defend it: a target with numbers, trade-offs with gains and costs, reviewed predictions, named gaps |
# | **Time** | 90 minutes; 70 of them for thinking and writing |
# | **You should know** | the labs you did; the report lists those you did not do |
# | **Runs on** | any laptop, half a minute of computing, no network |
# | **In llama.cpp** | `llama-bench -o json`, `-ctk q8_0 -ctv q8_0`, `llama-batched-bench`; the *purpose* of the numbers is your choice |

# %%
import logging
from pathlib import Path

from minillama.gguf.kv_cache_types import read_cache_types
from minillama.lab import Panel, Prediction, Slider, running, show
from minillama.lab.checks import lab12 as check
from minillama.lab.experiments.counted_passes import big_model, decode_speeds, pass_seconds
from minillama.lab.grading.check import attempt
from minillama.lab.grading.decisions import (
    OWN_RUN,
    Essay,
    Limit,
    LookBack,
    Ratio,
    Target,
    TradeOff,
    decide,
    example_targets,
    trade_offs_text,
)
from minillama.lab.grading.lab_results import measured, measurements_text, read_results
from minillama.lab.grading.report_html import build_report, calibration, save_figure
from minillama.lab.lab_record import measurement, results_folder
from minillama.lab.own_model import lab_model
from minillama.lab.plots.lab_plots import bars
from minillama.model import cache_bytes

logging.getLogger("minillama").setLevel(logging.ERROR)
RESULTS = results_folder()
MODEL = None  # or the path of your own GGUF file

# %% [markdown]
# ## 1. The target
#
# The target comes first, before the measurements: a target that is chosen after them is only a description of them. Three
# examples of a purpose. Choose one, or define your own:

# %% tags=["check-output"]
print(example_targets())

# %% [markdown]
# Section 2 measures these numbers of the model that you want to deploy (`MODEL` above), or of 73 MB of random weights:

# %% tags=["check-output"]
for name, unit in OWN_RUN.items():
    print(f"{name!r}: {unit}")

# %% [markdown]
# ### Exercise 1: a target with numbers
# "Fast enough" is no target. Return a `Target(name, limits)` with **two limits or more**, each a `Limit(lab, measurement,
# at_least=..., because=...)`, or with `at_most`. A limit is on a name of the list above, with lab `"12"`, or on a measurement
# of another lab. `because` is a sentence with the **number** that the limit comes from: the users' reading speed or patience,
# the free memory, the documents of a night.
#
# The check accepts every target with such reasons. It refuses a new target that measurements on record already meet ten
# times over in *all* limits, because such a target decides nothing. A target that you chose before the measurements stays
# valid, and it may be missed: that is a result.


# %% tags=["exercise"]
def target() -> Target:
    """Purpose of the deployment, and the limits that it has to keep."""
    raise NotImplementedError


# %% tags=["solution"]
def target() -> Target:
    """Purpose of the deployment, and the limits that it has to keep."""
    return Target(
        "chat on a laptop",
        (
            Limit(
                "12",
                "decoding, cache f16",
                at_least=7.0,
                because="people read about 5 words a second, which is 7 tokens",
            ),
            Limit(
                "12",
                "first token after 128 tokens",
                at_most=1000.0,
                because="people become impatient after 1 second without an answer",
            ),
            Limit(
                "12",
                "memory",
                at_most=4000.0,
                because="a laptop with 8 GB of memory has about 4 GB free",
            ),
        ),
    )


# %% [markdown] tags=["hint"]
# `return Target("batch", (Limit("12", "sixteen at a time, all together", at_least=..., because="... documents of ... tokens
# in 8 hours"), Limit(...)))`. Copy the names from the list above exactly, with every comma. For a chat: people read about
# five words a second, and a word is 1.4 tokens; they become impatient after a second without an answer; a laptop with 8 GB
# has about 4 GB free.

# %% tags=["check"]
check.target(target)

# %%
chosen = attempt(target)
decide("target", chosen)
print(chosen.name if isinstance(chosen, Target) else chosen)

# %% [markdown]
# ## 2. A separate run
#
# Both numbers of a ratio must come from one run on one machine. So this is a small run of the model. First predict:

# %%
sixteen = Prediction(
    "12",
    "sixteen at a time over one",
    "Sixteen tokens of sixteen users in one pass: "
    "how many times as many tokens a second as one alone?",
    "times",
)
sixteen.ask()

# %% tags=["solution"]
sixteen.record(16)  # "the weights are read once for all of them"

# %%
llm = lab_model(MODEL, big_model, ctx_size=2048)
DEPTH = 1000
prompt = list(range(3, 131))
with running("measurements", steps=6) as step:
    for kind in ("f16", "q8_0"):
        types = read_cache_types(kind, kind)
        ((_, rate),) = decode_speeds(llm, (DEPTH,), types)
        measurement("12", f"decoding, cache {kind}", rate, "tokens/s")
        measurement("12", f"cache, {kind}", cache_bytes(llm.config, DEPTH, types) / 1e6, "MB")
        step()
    for name, size in (("one at a time", 1), ("sixteen at a time", 16)):
        seconds = pass_seconds(llm, size)
        measurement("12", f"{name}, all together", size / seconds, "tokens/s")
        measurement("12", f"{name}, a token", 1e3 * seconds, "ms")
        step()
    for _ in range(2):  # the first time compiles
        timings = llm.generate(prompt, n=2, temp=0.0, ignore_eos=True).timings
        step()
measurement("12", "first token after 128 tokens", 1e3 * timings.first_token, "ms")
used = llm.memory.weights + llm.memory.cache + llm.memory.compute
measurement("12", "memory", used / 1e6, "MB")

results = read_results(RESULTS)
gain = (
    measured(results, "12", "sixteen at a time, all together").value
    / measured(results, "12", "one at a time, all together").value
)
show(sixteen.compare(gain, model=16.0))

# %% [markdown]
# All recorded measurements, of this run and of the labs in this folder. The exercises below refer to these names:

# %%
results = read_results(RESULTS)
print(measurements_text(results))

# %% [markdown]
# ### Exercise 2: met, missed or not measured
# Return `"met"`, `"missed"` or `"not measured"`. `value` is `None` if nothing was measured; `at_least` and `at_most`
# are `None` if there is no such limit. A value equal to the limit is `"met"`.


# %% tags=["exercise"]
def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """Verdict on a measurement and its limits."""
    raise NotImplementedError


# %% tags=["solution"]
def verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    """Verdict on a measurement and its limits."""
    if value is None:
        return "not measured"
    if at_least is not None and value < at_least:
        return "missed"
    if at_most is not None and value > at_most:
        return "missed"
    return "met"


# %% [markdown] tags=["hint"]
# Begin with `if value is None`. Then test for each existing limit whether the value is on the wrong side. Do not write
# `if value:` or `if at_least:`, because 0 is a number.

# %% tags=["check"]
check.verdict(verdict)

# %%
if isinstance(chosen, Target):
    print(chosen.name)
    for limit in chosen.limits:
        value = measured(results, limit.lab, limit.measurement)
        number = value.value if value else None
        got = attempt(verdict, number, limit.at_least, limit.at_most)
        shown = f": {value.value:.4g} {value.unit}" if value else ""
        print(f"  {limit.measurement}{shown} -> {got}")
else:
    print(chosen)

# %% [markdown]
# Are all values far within the limits? Then the target is easy for this model, and a larger, better model is the right
# choice: this is a result too. The figure shows the margins. The slider sets the size of another model, in multiples of
# the measured one; speed and memory scale with its bytes (lab 01).

# %%
EXAMPLE = (
    Limit("12", "decoding, cache f16", at_least=7.0),
    Limit("12", "memory", at_most=4000.0),
)


def margins(settings):
    """Factor between each measurement and its limit, for a model `larger` times as large."""
    limits = chosen.limits if isinstance(chosen, Target) else EXAMPLE
    names, values = [], []
    for limit in limits:
        value = measured(results, limit.lab, limit.measurement)
        if value is None or value.value <= 0:
            continue
        names.append(limit.measurement)
        values.append(limit.margin(value.value) / settings["larger"])
    title = f"Margin over the limit, for a model {settings['larger']:g} times as large"
    return bars(names, values, title, "1 is the limit", logarithmic=True)


# %% tags=["panel"]
panel = Panel(
    [
        Slider(
            "larger",
            "times as large",
            1.0,
            100.0,
            1.0,
            1.0,
            "the model's file, against the measured one",
        ),
    ],
    margins,
).show()

# %%
# The figure goes into the report.
kept = save_figure("12", "margins", margins({"larger": 1.0}))

# %% [markdown]
# ## 3. Trade-offs
#
# ### Exercise 3: trade-offs with measured ratios
# Return a tuple of **two or more** `TradeOff(choice, gain, cost, because)`. `gain` and `cost` are each a `Ratio(lab,
# before, after)` of two measurements of one lab in the same unit, before and after the change. `because` is a sentence:
# is the choice right *for your target*? You may also decide *against* a trade-off.


# %% tags=["exercise"]
def trade_offs() -> tuple[TradeOff, ...]:
    """Possible changes with their gains, costs and reasons."""
    raise NotImplementedError


# %% tags=["solution"]
def trade_offs() -> tuple[TradeOff, ...]:
    """Possible changes with their gains, costs and reasons."""
    return (
        TradeOff(
            "keys and values in q8_0",
            gain=Ratio("12", "cache, f16", "cache, q8_0"),
            cost=Ratio("12", "decoding, cache f16", "decoding, cache q8_0"),
            because="Against it: the cache is small compared with the weights, this target has "
            "enough memory, and every token needs unpacking.",
        ),
        TradeOff(
            "sixteen users in one pass",
            gain=Ratio("12", "one at a time, all together", "sixteen at a time, all together"),
            cost=Ratio("12", "one at a time, a token", "sixteen at a time, a token"),
            because="Against it for chat on a laptop, where one person waits for each token; for "
            "batch it is the first thing to do.",
        ),
    )


# %% [markdown] tags=["hint"]
# `Ratio("12", "cache, f16", "cache, q8_0")` is the size of the q8_0 cache over that of the f16 one. Both names come
# from the list in section 2, and both measurements have the same unit.

# %% tags=["check"]
check.trade_offs(trade_offs)

# %%
offered = attempt(trade_offs)
decide("trade-offs", offered)
print(trade_offs_text(offered, results))

# %% [markdown]
# ## 4. Predictions, reviewed
#
# Every dot is a number that you predicted before you measured it. On the diagonal you were right; a dot above it was
# too high.

# %%
results = read_results(RESULTS)
show(calibration(results))

# %% [markdown]
# ### Exercise 4: a prediction reviewed
# The dot furthest from the diagonal is the most valuable: it taught you something. Return `LookBack(lab, prediction,
# because)` for one that was both predicted and measured. `because` is a sentence: what was wrong in your assumption, or
# why was it right?


# %% tags=["exercise"]
def look_back() -> LookBack:
    """A prediction, and the lesson of its error."""
    raise NotImplementedError


# %% tags=["solution"]
def look_back() -> LookBack:
    """A prediction, and the lesson of its error."""
    return LookBack(
        "12",
        "sixteen at a time over one",
        "I thought of the bytes alone. They are read once, but the arithmetic of sixteen tokens is "
        "sixteen times as much, and past the ridge of the roofline it is what takes the time.",
    )


# %% [markdown] tags=["hint"]
# `LookBack("12", "sixteen at a time over one", "I thought that ...")`. First record a prediction (section 2, or any
# lab) and run the cell that measures it.

# %% tags=["check"]
check.look_back(look_back)

# %%
decide("look back", attempt(look_back))

# %% [markdown]
# ## 5. In your own words
#
# Three fields. Your text goes into the report unchanged. (Without widgets: `recommendation.record("...")`.)

# %%
recommendation = Essay(
    "1 recommendation", "What do you recommend, to whom, and what would change your mind?"
)
bottleneck = Essay(
    "2 bottleneck", "What limits it: memory, arithmetic, or overhead? Which numbers show it?"
)
gaps = Essay("3 gaps", "What did you not measure, and how could that change the recommendation?")
for essay in (recommendation, bottleneck, gaps):
    essay.ask()

# %% tags=["solution"]
recommendation.record(
    "For one person at a laptop: this model as it is, cache in f16, one pass a token. All values "
    "are far within the limits, so a model several times as large would be better still; speed "
    "falls with its bytes. I should change my mind when several people share the machine."
)
bottleneck.record(
    "Memory: a pass of sixteen tokens takes far less than sixteen passes of one, which can only be "
    "because most of the time is spent on reading the weights."
)
gaps.record(
    "The weights are random, so nothing is said about quality; perplexity of the real file would "
    "have to be measured (lab 06). One machine, otherwise idle, plugged in."
)

# %% [markdown]
# ## 6. The report
#
# Run this cell again after each change. Open `report.html` with a double click; it needs no network, and you can send
# it as one file.

# %%
report = attempt(build_report, RESULTS, Path("report.html"))
print(f"{report}: {report.stat().st_size / 1e6:.1f} MB" if isinstance(report, Path) else report)

# %% [markdown]
# The rubric of a reader (25 points; the last column of the report's rubric shows the recorded facts):
#
# | criterion | what a good report has | points |
# |---|---|---|
# | Target | names the users and the limits in numbers; the numbers fit the purpose | 4 |
# | Trade-offs | each has a gain and a cost, measured in one run, and a reason that uses the target | 6 |
# | Honest measuring | no compile time, several repetitions, one change at a time, same machine | 4 |
# | The roofline | decode speed is compared with its bound; the rest of the time is explained | 3 |
# | Predictions | made before measuring; one is reviewed, and the wrong assumption is named | 3 |
# | Words | a reader who was not there can decide with them | 3 |
# | Gaps | names what was not done or not measured | 1 |
# | Exercises | of the labs that were done | 1 |
#
# *High* numbers give no points. A slow machine can have an excellent report.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Set the target before the measurements, as numbers with a direction: at least, at most.
# * Every gain has a cost. If you have not found it, you have not measured it.
# * Ratios from one run on one machine are valid elsewhere; tokens a second are not.
# * Report what you did not do. A named gap is information; a hidden gap is an error.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | numbers for a report | `llama-bench -o json` | `minillama bench -o json`, with bytes and operations of a token |
# | several users in one pass | `llama-batched-bench` | `pass_seconds(llm, 16)` |
# | cache of half the bytes | `-ctk q8_0 -ctv q8_0` | the same |
# | the report | none | `build_report(results_folder(), Path("report.html"))` |
#
# ## When you get an error
#
# * `... is not readable json`, `... is ..., not a number`: a file in `results/` was changed or truncated. That part is
#   left out of the report. Run its lab again: a file that cannot be read is kept as `.bad`, and a new one begins.
# * `... is not written; results stay in this notebook's memory`: the folder is full or read-only. Make it writable before
#   you close the notebook: the next result writes all of them.
# * `lab 12 has no measurement ... on record`: the names must be exactly those of section 2. Run section 2 first.
# * `no folder .../results`: the notebook runs in another folder. Run all labs in one folder, because the results are stored
#   next to the notebook.
# * The figures in `report.html` stay empty: the browser forbids scripts in files. Each figure has a text alternative
#   below it.
