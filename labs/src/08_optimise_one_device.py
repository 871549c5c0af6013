# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 08 · Optimise one device
#
# Making a model faster is not turning knobs until a number is higher. It is a loop: *profile* (where does the time go?), *hypothesis* (this
# change gives this factor, because ...), *change* (one thing), *measure* (by turns, more than once), and then keep it or not. The second step is what
# makes an engineer: whoever predicts a factor learns something from every measurement, also from the disappointing ones.
#
# | | |
# |---|---|
# | **Afterwards you can** | name llama.cpp's performance flags and what each acts on, predict a gain, measure it honestly, and say when to stop |
# | **Time** | 75 minutes |
# | **You should know** | lab 00 (timing), lab 05 (prefill, decode, what a pass costs) |
# | **Runs on** | any laptop, a minute or two of computing, no network; with one core `-t` has nothing to show, without a GPU neither has `-ngl` |
# | **In llama.cpp** | `-ngl`, `-t`, `-c`, `-b`, `-ub`, `-ctk`, `-ctv`, samplers, `--spec-type ngram-simple`; measured by `llama-bench` |

# %%
from statistics import median

import numpy as np

import minillama as ml
from minillama import env
from minillama.engine.doctor import devices
from minillama.kernels import instruction_set
from minillama.lab import Dropdown, Panel, Prediction, show
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
from minillama.lab.grading.lab_record import measurement
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.measurement_plots import heat_map, waterfall
from minillama.measure.limits.work_per_token import cache_bytes_read

storyteller = ml.load(progress=False)
model = big_model()  # 73 MB of random weights: more than a processor's cache, as real models are
big = ml.load(model, ctx_size=1024, progress=False)
cores = len(env.describe().affinity)
print(f"{cores} cores; devices: {', '.join(device['kind'] for device in devices())}")
print("instruction sets:", " ".join(env.describe().instruction_sets))

# %% [markdown]
# ## 1. Profile: where does the time of a token go?
#
# Decoding waits for bytes (lab 05), so the cheapest profile needs no clock: which bytes does a token read?

# %%
parts = {"attention": 0, "feed-forward": 0, "head and embedding": 0}
for name, tensor in big.file.tensors.items():
    if name == "token_embd.weight":
        continue  # one row of it
    part = "feed-forward" if ".ffn_" in name else "attention" if ".attn_" in name else "head and embedding"
    parts[part] += tensor.nbytes
parts["cache, 512 tokens deep"] = cache_bytes_read(big.config, big.cache_types, [512])
total = sum(parts.values())
show(
    bars(list(parts), [100 * size / total for size in parts.values()], "Bytes that one token reads", "percent")
)

# %% [markdown]
# Now suppose somebody offers you a feed-forward of half the bytes. What is it worth? Not a factor of two, for the rest stays as long as it is.
#
# ### Exercise 1: Amdahl's law
# A part that takes `share` of the time (0 to 1) becomes `factor` times faster. How many times faster does the whole become? `factor` may be infinite.


# %% tags=["exercise"]
def amdahl(share: float, factor: float) -> float:
    """How many times faster the whole becomes."""
    raise NotImplementedError


# %% tags=["solution"]
def amdahl(share: float, factor: float) -> float:
    """How many times faster the whole becomes."""
    return 1 / (1 - share + share / factor)


# %% [markdown] tags=["hint"]
# Say the whole took 1 second. How long does it take afterwards? `1 - share` stays, `share` becomes `share / factor`. The gain is old time over new time.

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
# The last column is the important one: the most that this part can *ever* give. At a context of 512 no trick with the cache is worth the
# trouble on this model. At 100,000 it may be the only thing worth it.
#
# ## 2. Measure: by turns
#
# Machines drift: they get hot, a neighbour starts a job, memory fills up. Measure A five times and then B five times, and the drift is in your result.
#
# ### Exercise 2: by turns
# `before()` and `after()` run a measurement each and return tokens a second. Run them `rounds` times **by turns** and return how many times faster `after`
# is. The check's machine gets 1.5 % slower with each run, and somebody disturbs one of them badly.


# %% tags=["exercise"]
def gain(before, after, rounds: int) -> float:
    """How many times faster `after` is than `before`, measured by turns."""
    raise NotImplementedError


# %% tags=["solution"]
def gain(before, after, rounds: int) -> float:
    """How many times faster `after` is than `before`, measured by turns."""
    ratios = []
    for _ in range(rounds):
        slow = before()
        ratios.append(after() / slow)
    return median(ratios)


# %% [markdown] tags=["hint"]
# In each round run one, then the other, and keep the *ratio*: both ran under about the same conditions. Then `statistics.median` of the ratios.

# %% tags=["check"]
check.gain(gain)

# %% [markdown]
# ## 3. The knobs, one by one
#
# A measurement is a process of its own: `minillama bench`, with the flags that `llama-bench` has. Number of threads and kernels *must* be settled when a process
# starts, and what one process did before cannot help or hurt the next. Here is what stands behind `tokens_per_second`:

# %%
PROMPT, DECODE, DEEP = ("-p", "128", "-n", "0"), ("-p", "0", "-n", "16"), ("-p", "0", "-n", "16", "-d", "768")
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
    """By turns, and a line of what came out."""
    found = measure_interleaved(lambda: speed(before, test), lambda: speed(after, test))
    words = " ".join(f"{flag.replace(KERNELS, 'kernels')} {value}" for flag, value in after.items())
    verdict = f"×{found.ratio:.2f}" if max(found.ratio, 1 / found.ratio) > found.spread else "cannot tell"
    print(
        f"{words:20} {' '.join(test):18} {verdict:12} each round: {', '.join(f'×{ratio:.2f}' for ratio in found.ratios)}"
    )
    return measurement("08", f"{words}, {' '.join(test)}", found.ratio, "times")


# %% [markdown]
# **Batch size** (`-b`, `-ub`): tokens of a prompt that go through the network in one pass. Lab 05 says: the weights are read once a pass. So how
# much faster is a prompt of 128 tokens with passes of 128 than with passes of 16?

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
one, many = pass_seconds(big, 16), pass_seconds(big, 128)
show(batch.compare(faster, model=8 * one / many))

# %% [markdown]
# *Model says*: eight passes of 16, timed alone, over one of 128. For decoding `-ub` does nothing at all: there the pass is one token.
#
# **Threads** (`-t`). Prompts compute, so they want all *physical* cores. Decoding waits for memory, and a few cores may be enough to wait for all of it. More threads than
# physical cores usually make it worse.

# %%
if cores > 1:
    for test in (PROMPT, DECODE):
        compare({"-t": "1"}, {"-t": str(cores)}, test)
else:
    print(
        "this process may use one core: nothing to compare (on a hub, ask for more; on Linux, see taskset -p)"
    )

# %% [markdown]
# **Instruction sets.** llama.cpp chooses its kernels for AVX2, AVX-512 or NEON when it is compiled or loaded. minillama makes them at the first run, and
# `MINILLAMA_CPU_KERNELS=amx|avx512|avx2|generic|off` asks for fewer; `off` lets XLA multiply. This is the largest factor in the lab, and nobody notices it, since a
# binary without AVX works just as well, only slowly.

# %%
if "avx512f" in env.describe().instruction_sets:
    compare({KERNELS: "avx2"}, {KERNELS: "avx512"}, PROMPT)
    if instruction_set() == "amx":
        compare({KERNELS: "avx512"}, {KERNELS: "amx"}, PROMPT)
else:
    print("no AVX-512 here; compare avx2 with generic in a terminal, it takes half a minute")

# %% [markdown]
# **Types of the cache** (`-ctk`, `-ctv`) and **context size** (`-c`). The cache is read with each token, so half the bytes should help, by at most the share
# that the cache has (section 1). And a larger `-c` alone costs room, no time:

# %%
compare({"-ctk": "f32", "-ctv": "f32"}, {"-ctk": "f16", "-ctv": "f16"}, DEEP)
for size in (256, 1024, 4096):
    opened = ml.load(model, ctx_size=size, progress=False)
    print(f"-c {size:5}: {opened.memory}")

# %% [markdown]
# **Layers on the GPU** (`-ngl`). Each layer that lies on the accelerator is read at the accelerator's bandwidth, often ten times the processor's. Amdahl again: the
# layers that stay behind decide. With half of the layers on a GPU that is infinitely fast you gain a factor of two.

# %%
if any(device["platform"] != "cpu" for device in devices()):
    compare({"-ngl": "0"}, {"-ngl": "3"}, DECODE)
    compare({"-ngl": "3"}, {"-ngl": "99"}, DECODE)
else:
    print("JAX sees no GPU here. What Amdahl says of the layers on one that is ten times as fast:")
    for layers in range(0, 7, 2):
        said = attempt(amdahl, layers / 6, 10.0)
        print(f"  -ngl {layers} of 6: " + (f"×{said:.2f}" if isinstance(said, float) else str(said)))

# %% [markdown]
# **Sampling settings.** The chain of lab 04 runs once a token, inside the compiled step. Next to a model of gigabytes it is nothing. If it can be seen anywhere,
# then on the storyteller, whose tokens take a third of a millisecond. Does greedy decoding beat the default chain there? A few per cent either way is noise:

# %%
for _ in range(2):  # the first time compiles
    found = measure_interleaved(
        lambda: generation_speed(storyteller, "Once upon a time", temp=0.8),
        lambda: generation_speed(storyteller, "Once upon a time"),
        5,
    )
print(f"greedy over the default chain: ×{found.ratio:.2f}")

# %% [markdown]
# ## 4. Lookup decoding: more than one token a pass
#
# A pass of eight tokens costs less than eight passes (lab 05). So *guess* the next seven and let one pass check them. `--lookup` guesses that
# a text goes on as it did the last time the same words stood there. The text stays exactly the same. llama.cpp calls it `--spec-type ngram-simple` or `llama-lookup`.
#
# ### Exercise 3: when a draft pays
# Of `drafted` tokens a pass, the share `accept` is right, on average; besides, every pass writes one token of the model's own. A pass takes `cost` times as long as that
# of a single token. How many times faster does decoding become?


# %% tags=["exercise"]
def lookup_gain(accept: float, drafted: int, cost: float) -> float:
    """How many times faster decoding with drafts is."""
    raise NotImplementedError


# %% tags=["solution"]
def lookup_gain(accept: float, drafted: int, cost: float) -> float:
    """How many times faster decoding with drafts is."""
    return (1 + accept * drafted) / cost


# %% [markdown] tags=["hint"]
# Tokens that a pass writes: 1 + accept × drafted. Divide by what it costs.

# %% tags=["check"]
check.lookup_gain(lookup_gain)

# %%
cost = pass_seconds(big, 8) / pass_seconds(big, 1)
print(
    f"a pass of 8 takes {cost:.1f} times as long as one of 1: drafts of 7 pay from {(cost - 1) / 7:.0%} accepted on"
)
texts = {
    "repeats itself": (big, [5, 6, 7] * 40),
    "a new story": (storyteller, "Once upon a time, there was a little fox."),
}
ratios = {}
for name, (llm, text) in texts.items():
    for _ in range(2):  # the first time compiles
        options = {"n": 96, "temp": 0.0, "ignore_eos": True}
        drafted = llm.generate(text, lookup=True, **options)
        plain = llm.generate(text, **options)
        found = measure_interleaved(lambda: generation_speed(llm, text, n=96), lambda: generation_speed(llm, text, n=96, lookup=True), 3)
    rate = drafted.timings.accept_rate
    print(f"{name}: {rate:.0%} accepted, the same text: {drafted.tokens == plain.tokens}, ×{found.ratio:.2f}")
    ratios[f"{name} ({rate:.0%} accepted)"] = measurement("08", f"--lookup, {name}", found.ratio, "times")
show(bars(list(ratios), list(ratios.values()), "Decoding with --lookup over decoding without", "times faster"))

# %% [markdown]
# The same flag doubles one speed and spoils the other. Code, tables, quotations and summaries repeat themselves, stories do not, and a small model whose
# weights lie in the processor's cache does not wait for memory in the first place. There is no flag that is *fast*; there are flags that fit.
#
# ## 5. A map of two knobs
#
# Two knobs may help each other, or be the same knob twice. **Start** measures every pair, one process each; **Stop** stops after the one that is running. An asterisk
# marks the best so far. Try `-ub` against kernels for a prompt, then for decoding.

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
    """Which map these settings belong to."""
    return settings["rows"], settings["columns"], settings["test"]


def draw(settings):
    """The map as far as it is measured, without widgets: settings in, picture out."""
    rows, columns, test = place(settings)
    title = f"Tokens a second: {test}"
    return heat_map(VALUES[rows], VALUES[columns], measured.get(place(settings), {}), title, columns, rows)


def measure(settings):
    """The measuring, without widgets: settings in, lines of text and maps out."""
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


panel = Panel(
    [
        Dropdown("rows", "down", tuple(VALUES), "-ub", "the flag of the rows"),
        Dropdown("columns", "across", tuple(VALUES), "kernels", "the flag of the columns"),
        Dropdown("test", "what is measured", tuple(TESTS), "prompt of 128", "prompts compute, decoding reads"),
    ],
    draw,
    measure,
).show()

# %% [markdown]
# The same without buttons. On the command line: `minillama bench -m model.gguf -p 128 -n 0 -ub 16,64,256`, once for each value of `MINILLAMA_CPU_KERNELS`.

# %%
*_, last = measure({"rows": "-ub", "columns": "kernels", "test": "prompt of 128"})
show(last)

# %% [markdown]
# ## 6. Three changes of your own
#
# Somebody installed a model server and went on holiday. It runs **like this**, and people wait:

# %%
START = {KERNELS: "off", "-ub": "16", "-t": "1", "-ctk": "f32", "-ctv": "f32"}
REQUEST = ("-p", "0", "-n", "0", "-pg", "128,8")  # one request: a prompt of 128 tokens, an answer of 8
check.plan.on(START, lambda flags: tokens_per_second(model, flags, (*REQUEST, "-r", "1")))
print(START)

# %% [markdown]
# ### Exercise 4: three changes, predicted and measured
# Return a list of at least three `Change(flag, value, predicted)`, with three different flags: `-t`, `-b`, `-ub`, `-ctk`, `-ctv`, `-ngl`, or `KERNELS`. `predicted` is the
# factor by which you expect a request to become faster, *on top of the changes before it*. The check records your predictions **first**, then measures each
# change against what was before, A B A B. The first prediction counts. A prediction that turns out wrong passes too: write down why you think it did.


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
        Change("-ctk", "f16", 1.02),  # the cache is a small share of the bytes at this depth: Amdahl
    ]


# %% [markdown] tags=["hint"]
# What does a request consist of? 128 tokens of prompt, 8 of answer. Which knob acts on which? Start with the largest: `Change(KERNELS, "auto", 5.0)`.

# %% tags=["check"]
check.changes(changes)

# %%
tried = check.plan.tried
if tried:
    for change, found in tried:
        print(
            f"{change.name:14} you said ×{change.predicted:.2f}, measured ×{found.ratio:.2f}, by turns",
            *(f"×{ratio:.2f}" for ratio in found.ratios),
        )
    start = median(tried[0][1].before)
    show(waterfall(start, waterfall_steps(tried), "What the changes gave", "tokens a second"))
else:
    print("Solve exercise 4, and here stands the waterfall of your gains.")

# %% [markdown]
# Read it from the left: each bar stands on what was there before, and the diamond is where your prediction would have led. After the first large
# factor the rest is crumbs. That is Amdahl's law again: when to stop is part of the craft. And a crumb that is larger than its share allows is noise: two rounds
# can agree by luck. The cache of a request this short is two per cent of the bytes, so no type of it can give more.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Profile, hypothesis, change, measure. One change at a time, a factor predicted before, measured by turns.
# * Ask first whether the work is a *prompt* (computes: kernels, threads, `-ub`) or *decoding* (reads: smaller files, smaller cache, GPU, drafts).
# * The share of a part bounds what it can give. Large factors first, and stop when only crumbs are left.
# * A gain smaller than the difference between two rounds is no gain.
#
# | knob | flag | acts on | in minillama |
# |---|---|---|---|
# | layers on the GPU | `-ngl N` | both | the same |
# | threads | `-t`, `-tb` | prompts most | the same; settled when the process starts |
# | instruction sets | chosen by llama.cpp's build or loader | both | `MINILLAMA_CPU_KERNELS` |
# | context size | `-c` | room; time only as far as it is used | the same |
# | sampling | `--samplers`, `--top-k` ... | the text; hardly the time | the same |
# | batch sizes | `-b`, `-ub` | prompts | the same |
# | cache types | `-ctk`, `-ctv` | room; deep decoding | f32, f16, bf16, q8_0 |
# | lookup decoding | `--spec-type ngram-simple` | text that repeats itself | `--lookup` |
# | a smaller file | another quantisation | decoding | lab 07 |
#
# ## When you get an error
#
# * `ResourceError: minillama failed with status 2: ...`: the words behind it are the child's; mostly a flag that this machine cannot follow.
# * `threads=... comes too late`: in this kernel JAX has started. That is why threads are measured in children.
# * A change is measured once and kept. To measure it anew, or to forget a prediction, delete `results/lab08.json`.
# * Everything differs from run to run by more than the gains: something else runs on the machine (`top`), or the laptop is on battery.
# * The first measurement of a new shape takes seconds longer: it compiles. That time is not in the figures.
