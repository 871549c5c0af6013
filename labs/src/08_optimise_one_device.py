# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 08 · Optimise one device
#
# Do not try options at random until a number is higher. Optimisation is a loop: *profile* (where does the time go?),
# *hypothesis* (this change gives this factor, because ...), *change* (one thing), *measure* (interleaved A/B, more than
# once), and then keep the change or not. The second step is the most important one: if you predict a factor, you learn
# from every measurement, also from the disappointing ones.
#
# | | |
# |---|---|
# | **Afterwards you can** | name llama.cpp's performance flags and what each acts on, predict a gain, measure it honestly, and say when to stop |
# | **Time** | 75 minutes |
# | **You should know** | lab 00 (timing), lab 05 (prefill, decode, what a pass costs) |
# | **Runs on** | any laptop, a minute or two of computing, no network; with one core `-t` has no effect, and without a GPU neither has `-ngl` |
# | **In llama.cpp** | `-ngl`, `-t`, `-c`, `-b`, `-ub`, `-ctk`, `-ctv`, samplers, `--spec-type ngram-simple`; measured by `llama-bench` |

# %%
from statistics import median

import numpy as np

from minillama import env
from minillama.engine.doctor import devices
from minillama.kernels import instruction_set
from minillama.lab import Dropdown, Panel, Prediction, collect, running, show
from minillama.lab.checks import lab08 as check
from minillama.lab.experiments.ab_measurement import (
    KERNELS,
    Change,
    command,
    generation_speed,
    measure_grid,
    measure_interleaved,
    tokens_per_second,
    waterfall_steps,
)
from minillama.lab.experiments.counted_passes import big_model, pass_seconds
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, model_file, scaled
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.measurement_plots import heat_map, waterfall
from minillama.measure.limits.work_per_token import cache_bytes_read

MODEL = None  # or the path of your own GGUF file
storyteller = lab_model(MODEL)  # None: the storyteller, which fits in a processor's cache
# None: 73 MB of random weights: more than a processor's cache, as real models are
model = model_file(MODEL, big_model)
big = lab_model(MODEL, big_model, ctx_size=1024)
cores = len(env.describe().affinity)
print(f"{cores} cores; devices: {', '.join(device['kind'] for device in devices())}")
print("instruction sets:", " ".join(env.describe().instruction_sets))

# %% [markdown]
# ## 1. Profile: where does the time of a token go?
#
# Decode waits for bytes (lab 05), so the cheapest profile needs no clock: which bytes does a token read?

# %%
parts = {"attention": 0, "feed-forward": 0, "head and embedding": 0}
for name, tensor in big.file.tensors.items():
    if name == "token_embd.weight" and "output.weight" in big.file.tensors:
        continue  # one row of it
    part = (
        "feed-forward"
        if ".ffn_" in name
        else "attention"
        if ".attn_" in name
        else "head and embedding"
    )
    parts[part] += tensor.nbytes
parts["cache, 512 tokens deep"] = cache_bytes_read(big.config, big.cache_types, [512])
total = sum(parts.values())
show(
    bars(
        list(parts),
        [100 * size / total for size in parts.values()],
        "Bytes that one token reads",
        "percent",
    )
)

# %% [markdown]
# Suppose that a new format halves the bytes of the feed-forward. What is the gain? Not a factor of two, because the
# rest takes as long as before.
#
# ### Exercise 1: Amdahl's law
# A part that takes `share` of the time (0 to 1) becomes `factor` times faster. How many times faster is the whole?
# `factor` may be infinite.


# %% tags=["exercise"]
def amdahl(share: float, factor: float) -> float:
    """Speed-up of the whole."""
    raise NotImplementedError


# %% tags=["solution"]
def amdahl(share: float, factor: float) -> float:
    """Speed-up of the whole."""
    return 1 / (1 - share + share / factor)


# %% [markdown] tags=["hint"]
# Assume that the whole takes 1 second. How long does it take after the change? `1 - share` stays, `share` becomes
# `share / factor`. The gain is old time over new time.

# %% tags=["check"]
check.amdahl(amdahl)

# %% tags=["check-output"]
for name, size in parts.items():
    twice, gone = attempt(amdahl, size / total, 2.0), attempt(amdahl, size / total, np.inf)
    if isinstance(twice, float):
        print(f"{name:24} half the bytes: ×{twice:.2f}   none at all: ×{gone:.2f}")
    else:
        print(f"{name:24} {twice}")

# %% [markdown]
# The last column is the important one: the largest possible gain from this part. At a context of 512 no optimisation of
# the cache is worth the effort on this model. At 100,000 it may be the only one that is.
#
# ## 2. Measure: interleaved A/B
#
# Machines drift: they get hot, other jobs start, memory fills up. If you measure A five times and then B five times,
# the drift is in your result.
#
# ### Exercise 2: interleaved A/B
# `before()` and `after()` each run a measurement and return tokens a second. Run them `rounds` times **interleaved** (A
# B A B ...) and return how many times faster `after` is. The check's machine gets 1.5 % slower with each run, and one
# run is badly disturbed.


# %% tags=["exercise"]
def gain(before, after, rounds: int) -> float:
    """Speed-up of `after` over `before`, measured interleaved (A B A B ...)."""
    raise NotImplementedError


# %% tags=["solution"]
def gain(before, after, rounds: int) -> float:
    """Speed-up of `after` over `before`, measured interleaved (A B A B ...)."""
    ratios = []
    for _ in range(rounds):
        slow = before()
        ratios.append(after() / slow)
    return median(ratios)


# %% [markdown] tags=["hint"]
# In each round run one, then the other, and store the *ratio*: both ran under about the same conditions. Then
# `statistics.median` of the ratios.

# %% tags=["check"]
check.gain(gain)

# %% [markdown]
# ## 3. The flags, one by one
#
# Each measurement is a separate process: `minillama bench`, with the flags of `llama-bench`. The number of threads and
# the kernels are fixed when a process starts, and a new process is independent of earlier ones. `tokens_per_second`
# runs this command:

# %%
PROMPT, DECODE, DEEP = (
    ("-p", "128", "-n", "0"),
    ("-p", "0", "-n", "16"),
    ("-p", "0", "-n", "16", "-d", "768"),
)
shown, environment = command(model, {"-ub": "64", KERNELS: "avx2"}, (*PROMPT, "-r", "3"))
print(
    *(f"{name}={value}" for name, value in environment.items()),
    "minillama",
    *shown[3:5],
    model.name,
    *shown[6:],
)


def speed(flags, test):
    """Tokens a second under these flags, three repetitions."""
    return tokens_per_second(model, flags, (*test, "-r", "3"))


def compare(before, after, test):
    """Measure interleaved and print one line with the result."""
    found = measure_interleaved(lambda: speed(before, test), lambda: speed(after, test))
    words = " ".join(f"{flag.replace(KERNELS, 'kernels')} {value}" for flag, value in after.items())
    verdict = (
        f"×{found.ratio:.2f}" if max(found.ratio, 1 / found.ratio) > found.spread else "cannot tell"
    )
    print(
        f"{words:20} {' '.join(test):18} {verdict:12} each round: "
        f"{', '.join(f'×{ratio:.2f}' for ratio in found.ratios)}"
    )
    return measurement("08", f"{words}, {' '.join(test)}", found.ratio, "times")


# %% [markdown]
# **Batch size** (`-b`, `-ub`): tokens of a prompt that go through the network in one pass. From lab 05: a pass reads
# the weights once. How much faster is a prompt of 128 tokens with passes of 128 than with passes of 16?

# %%
batch = Prediction(
    "08",
    "-ub 128 over -ub 16",
    "A prompt of 128 tokens: how many times faster is -ub 128 than -ub 16?",
    "times",
)
batch.ask()

# %% tags=["solution"]
batch.record(3)  # eight times fewer bytes to read, but not all of it is reading

# %%
faster = compare({"-ub": "16"}, {"-ub": "128"}, PROMPT)
with running("passes of 16 and of 128 tokens", seconds=30 if MODEL else 3):
    one, many = pass_seconds(big, 16), pass_seconds(big, 128)
show(batch.compare(faster, model=8 * one / many))

# %% [markdown]
# *Model says*: eight passes of 16, timed separately, over one of 128. For decode `-ub` has no effect: there a pass has
# one token.
#
# **Threads** (`-t`). Prompts are bound by arithmetic, so they use all *physical* cores. Decode waits for memory, and a
# few cores may be enough to use its full bandwidth. More threads than physical cores usually make it slower.

# %%
if cores > 1:
    for test in (PROMPT, DECODE):
        compare({"-t": "1"}, {"-t": str(cores)}, test)
else:
    print(
        "this process may use one core: nothing to compare (on a hub, ask for more; on Linux, "
        "see taskset -p)"
    )

# %% [markdown]
# **Instruction sets.** llama.cpp chooses its kernels for AVX2, AVX-512 or NEON when it is compiled or loaded. minillama
# makes them at the first run, and `MINILLAMA_CPU_KERNELS` selects a lower level: `amx`, `avx512`, `avx-vnni`, `avx2`,
# on ARM `neon-i8mm`, `neon-dotprod`, and `generic`; with `off` XLA multiplies. This is the largest factor in the lab,
# and it is easy to miss, because a binary without AVX gives the same results, only slowly.

# %%
if "avx512f" in env.describe().instruction_sets:
    compare({KERNELS: "avx2"}, {KERNELS: "avx512"}, PROMPT)
    if instruction_set() == "amx":
        compare({KERNELS: "avx512"}, {KERNELS: "amx"}, PROMPT)
else:
    compare({KERNELS: "generic"}, {KERNELS: instruction_set()}, PROMPT)

# %% [markdown]
# **Types of the cache** (`-ctk`, `-ctv`) and **context size** (`-c`). Each token reads the cache, so half the bytes
# should help, but at most by the cache's share (section 1). A larger `-c` alone costs memory, but no time:

# %%
compare({"-ctk": "f32", "-ctv": "f32"}, {"-ctk": "f16", "-ctv": "f16"}, DEEP)
for size in (256, 1024, 4096):
    opened = lab_model(MODEL, big_model, ctx_size=size)
    print(f"-c {size:5}: {opened.memory}")

# %% [markdown]
# **Layers on the GPU** (`-ngl`). The accelerator reads its layers at its own bandwidth, often ten times the
# processor's. By Amdahl's law, the layers on the processor decide. With half of the layers on an infinitely fast GPU
# the gain is a factor of two.

# %%
if any(device["platform"] != "cpu" for device in devices()):
    compare({"-ngl": "0"}, {"-ngl": "3"}, DECODE)
    compare({"-ngl": "3"}, {"-ngl": "99"}, DECODE)
else:
    print("JAX finds no GPU here. Amdahl's law for layers on a GPU that is ten times as fast:")
    count = big.config.block_count
    for layers in range(0, count + 1, max(1, count // 3)):
        gain_by_law = attempt(amdahl, layers / count, 10.0)
        print(
            f"  -ngl {layers} of {count}: "
            + (f"×{gain_by_law:.2f}" if isinstance(gain_by_law, float) else str(gain_by_law))
        )

# %% [markdown]
# **Sampling settings.** The chain of lab 04 runs once per token, inside the compiled step. For a model of gigabytes its
# time is negligible. It is most visible on the storyteller, whose tokens take a third of a millisecond. Is greedy
# decoding faster than the default chain there? A few percent in either direction is noise:

# %%
ROUNDS = scaled(5, storyteller, tokens=2 * 2 * 64, least=1)  # 5 of a small model
for _ in range(2):  # the first time compiles
    found = measure_interleaved(
        lambda: generation_speed(storyteller, "Once upon a time", temp=0.8),
        lambda: generation_speed(storyteller, "Once upon a time"),
        ROUNDS,
    )
print(f"greedy over the default chain: ×{found.ratio:.2f}")

# %% [markdown]
# ## 4. Lookup decoding: more than one token per pass
#
# A pass of eight tokens costs less than eight passes (lab 05). So *guess* the next seven tokens and verify them in one
# pass. `--lookup` guesses that the text continues as it did after the last occurrence of the same words. The text stays
# exactly the same. llama.cpp calls it `--spec-type ngram-simple` or `llama-lookup`.
#
# ### Exercise 3: when a draft pays
# Each pass drafts `drafted` tokens, and on average the share `accept` of them is right. Every pass also produces one
# token of the model itself. A pass takes `cost` times as long as a pass of a single token. How many times faster is
# decode?


# %% tags=["exercise"]
def lookup_gain(accept: float, drafted: int, cost: float) -> float:
    """Speed-up of decode with drafts."""
    raise NotImplementedError


# %% tags=["solution"]
def lookup_gain(accept: float, drafted: int, cost: float) -> float:
    """Speed-up of decode with drafts."""
    return (1 + accept * drafted) / cost


# %% [markdown] tags=["hint"]
# Tokens of a pass: 1 + accept × drafted. Divide by the cost.

# %% tags=["check"]
check.lookup_gain(lookup_gain)

# %%
with running("passes of 8 tokens and of 1", seconds=15 if MODEL else 3):
    cost = pass_seconds(big, 8) / pass_seconds(big, 1)
needed = (cost - 1) / 7
pay = f"pay from {needed:.0%} accepted on" if needed < 1 else "never pay"
print(f"a pass of 8 takes {cost:.1f} times as long as one of 1: drafts of 7 {pay}")
texts = {
    "repeats itself": (big, [5, 6, 7] * 40),
    "a new story": (storyteller, "Once upon a time, there was a little fox."),
}
ratios = {}
LENGTH = scaled(96, big, tokens=2 * 2 * 8, least=16)  # 96 tokens of a small model
for name, (llm, text) in texts.items():
    for _ in range(2):  # the first time compiles
        options = {"n": LENGTH, "temp": 0.0, "ignore_eos": True}
        with running("a text with drafts, and one without", seconds=10 if MODEL else 3):
            drafted = llm.generate(text, lookup=True, **options)
            plain = llm.generate(text, **options)
        found = measure_interleaved(
            lambda: generation_speed(llm, text, n=LENGTH),
            lambda: generation_speed(llm, text, n=LENGTH, lookup=True),
            3,
        )
    rate = drafted.timings.accept_rate
    print(
        f"{name}: {rate:.0%} accepted, the same text: {drafted.tokens == plain.tokens}, "
        f"×{found.ratio:.2f}"
    )
    ratios[f"{name} ({rate:.0%} accepted)"] = measurement(
        "08", f"--lookup, {name}", found.ratio, "times"
    )
show(
    bars(
        list(ratios),
        list(ratios.values()),
        "Decoding with --lookup over decoding without",
        "times faster",
    )
)

# %% [markdown]
# The same flag doubles one speed and reduces the other. Code, tables, quotations and summaries repeat themselves,
# stories do not, and a small model with its weights in the processor's cache does not wait for memory at all. No flag
# is always *fast*; a flag must fit the work.
#
# ## 5. A map of two flags
#
# The gains of two flags may combine, or they may have the same cause. **Start** measures every pair, one process each;
# **Stop** ends after the running one. A star marks the best so far. Try `-ub` against kernels for a prompt, then for
# decode.

# %%
VALUES = {
    "-ub": ("16", "64", "256"),
    "-t": tuple(str(count) for count in sorted({1, max(1, cores // 2), cores})),
    "kernels": ("avx2", "auto"),
    "-ctk": ("f32", "f16", "q8_0"),
}
TESTS = {"prompt of 128": PROMPT, "decoding": DECODE, "decoding, 768 deep": DEEP}
measured = {}


def place(settings):
    """Key of the map of these settings."""
    return settings["rows"], settings["columns"], settings["test"]


def draw(settings):
    """The map as far as it is measured, without widgets: settings in, figure out."""
    rows, columns, test = place(settings)
    title = f"Tokens a second: {test}"
    return heat_map(
        VALUES[rows], VALUES[columns], measured.get(place(settings), {}), title, columns, rows
    )


def measure(settings):
    """The measurement, without widgets: settings in, lines of text and maps out."""
    rows, columns, test = place(settings)
    if rows == columns:
        yield "choose two different flags"
        return
    flags = [KERNELS if name == "kernels" else name for name in (rows, columns)]
    found = measured.setdefault(place(settings), {})
    plan = [(name, VALUES[old]) for name, old in zip(flags, (rows, columns), strict=True)]
    for pair, value in measure_grid(model, {}, *plan, (*TESTS[test], "-r", "2")):
        found[pair] = value
        yield f"{rows} {pair[0]}, {columns} {pair[1]}: {value:,.0f} tokens/s\n"
        yield draw(settings)


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown("rows", "down", tuple(VALUES), "-ub", "the flag of the rows"),
        Dropdown("columns", "across", tuple(VALUES), "kernels", "the flag of the columns"),
        Dropdown(
            "test",
            "what is measured",
            tuple(TESTS),
            "prompt of 128",
            "prompts are bound by arithmetic, decode by memory",
        ),
    ],
    draw,
    measure,
).show()

# %% [markdown]
# The same without buttons. On the command line: `minillama bench -m model.gguf -p 128 -n 0 -ub 16,64,256`, once for
# each value of `MINILLAMA_CPU_KERNELS`.

# %%
SETTINGS = {"rows": "-ub", "columns": "kernels", "test": "prompt of 128"}
*_, last = collect(measure(SETTINGS), "settings", len(VALUES["-ub"]) * len(VALUES["kernels"]))
show(last)

# %% [markdown]
# ## 6. Three changes of your own
#
# A model server runs with **these settings**, and its users wait:

# %%
START = {KERNELS: "off", "-ub": "16", "-t": "1", "-ctk": "f32", "-ctv": "f32"}
REQUEST = (
    "-p",
    "0",
    "-n",
    "0",
    "-pg",
    "128,8",
)  # one request: a prompt of 128 tokens, an answer of 8
# It is the model of 73 MB in any case: with the kernels off, a large model takes minutes.
check.plan.on(START, lambda flags: tokens_per_second(big_model(), flags, (*REQUEST, "-r", "1")))
print(START)

# %% [markdown]
# ### Exercise 4: three changes, predicted and measured
# Return a list of at least three `Change(flag, value, predicted)`, with three different flags: `-t`, `-b`, `-ub`,
# `-ctk`, `-ctv`, `-ngl`, or `KERNELS`. `predicted` is the factor by which you expect a request to become faster, *on
# top of the changes before it*. The check records your predictions **first**, then measures each change against what
# was before, A B A B. The first prediction counts. A wrong prediction also passes: write down why you think it was
# wrong.


# %% tags=["exercise"]
def changes():
    """At least three changes, in the order in which they are made."""
    raise NotImplementedError


# %% tags=["solution"]
def changes():
    """At least three changes, in the order in which they are made."""
    return [
        Change(KERNELS, "auto", 5.0),  # sections 3 and 5: the kernels are the largest factor
        Change("-ub", "128", 1.4),  # most of a request is its prompt, and there it gave about this
        Change(
            "-ctk", "f16", 1.02
        ),  # the cache is a small share of the bytes at this depth: Amdahl
    ]


# %% [markdown] tags=["hint"]
# A request consists of 128 tokens of prompt and 8 of answer. Which flag acts on which part? Start with the largest:
# `Change(KERNELS, "auto", 5.0)`.

# %% tags=["check"]
check.changes(changes)

# %%
tried = check.plan.tried
if tried:
    for change, found in tried:
        print(
            f"{change.name:14} you predicted ×{change.predicted:.2f}, measured "
            f"×{found.ratio:.2f}, each round",
            *(f"×{ratio:.2f}" for ratio in found.ratios),
        )
    start = median(tried[0][1].before)
    show(waterfall(start, waterfall_steps(tried), "Gains of the changes", "tokens a second"))
else:
    print("Solve exercise 4 to see the waterfall of your gains.")

# %% [markdown]
# Read it from the left: each bar starts at the previous speed, and the diamond shows your prediction. After the first
# large factor the other gains are small. This is Amdahl's law again: you must know when to stop. A small gain that is
# larger than its share allows is noise: two rounds can agree by chance. The cache of such a short request is two
# percent of the bytes, so no cache type can give more.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Profile, hypothesis, change, measure. One change at a time, with a factor predicted before, measured interleaved.
# * First decide whether the work is a *prompt* (bound by arithmetic: kernels, threads, `-ub`) or *decode* (bound by
#   memory: smaller files, smaller cache, GPU, drafts).
# * The share of a part bounds its gain. Begin with large factors, and stop when only small ones remain.
# * A gain smaller than the difference between two rounds is not significant.
#
# | setting | flag | acts on | in minillama |
# |---|---|---|---|
# | layers on the GPU | `-ngl N` | both | the same |
# | threads | `-t`, `-tb` | prompts most | the same; fixed when the process starts |
# | instruction sets | chosen by llama.cpp's build or loader | both | `MINILLAMA_CPU_KERNELS` |
# | context size | `-c` | memory; time only for the used part | the same |
# | sampling | `--samplers`, `--top-k` ... | the text; almost no time | the same |
# | batch sizes | `-b`, `-ub` | prompts | the same |
# | cache types | `-ctk`, `-ctv` | memory; decode at depth | f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, iq4_nl, q4_0; quantised heads are rotated |
# | lookup decoding | `--spec-type ngram-simple` | text that repeats itself | `--lookup` |
# | a smaller file | another quantisation | decoding | lab 07 |
#
# ## When you get an error
#
# * `ResourceError: minillama failed with status 2: ...`: the text after it comes from the child process; usually a flag
#   that this machine does not support.
# * `threads=... comes too late`: JAX has already started in this kernel. Therefore the lab measures threads in child
#   processes.
# * A change is measured once and recorded. To measure it again, or to delete a prediction, delete `results/lab08.json`.
# * Results differ from run to run by more than the gains: another program runs on the machine (`top`), or the laptop is
#   on battery.
# * The first measurement of a new shape takes seconds longer: it compiles. That time is not in the figures.
