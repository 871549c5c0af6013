# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 00 · Install and doctor
#
# You will deploy language models and *measure* them. Before you trust a number, check three things: that the engine
# works on this machine, what machine this is, and what a clock around a JAX call really measures. Almost everyone gets
# the third one wrong once.
#
# | | |
# |---|---|
# | **Afterwards you can** | get text out of a model in two lines, read your machine's data sheet, and time a compiled function honestly |
# | **Time** | 30 minutes |
# | **You should know** | Python; how to run a cell (Shift+Enter) |
# | **Runs on** | any laptop, 15 seconds of computing, no network: a model comes with the package |
# | **In llama.cpp** | `llama-cli -m model.gguf`, `llama-bench -m model.gguf` |
#
# How the labs work: cells marked **Exercise** have a stub that you fill in. The next cell **checks** your function with
# hidden inputs. It prints *PASS*, or *not yet* and the likely mistake. A check never stops the notebook, so *Run All*
# always reaches the end. Before each measurement, **predict** the result. Hints are folded. The solved and executed
# notebooks are in `labs/solutions/` of minillama's repository.

# %% [markdown]
# ## 1. The first text

# %% tags=["check-output"]
from minillama.lab.own_model import lab_model

MODEL = None  # or the path of your own GGUF file
llm = lab_model(MODEL)  # None: the storyteller that comes with minillama
print(llm.generate("Once upon a time", n=48, temp=0.0))

# %% [markdown]
# That was a whole language model, read from disk, compiled for your processor, and run token by token. The storyteller
# has 2.3 million weights in a file of 2.5 MB. In your own code, `ml.load()` opens it and `ml.load("model.gguf")` any other
# file. In the labs, `MODEL = "model.gguf"` does, in the first code cell of each: the whole lab then runs with your model, with
# fewer samples if it is a large one. A stream shows the text while it is generated:

# %%
for piece in llm.stream("One day, a dragon", n=60, temp=0.8, seed=4):
    print(piece.text, end="", flush=True)

# %% [markdown]
# The next cell greets the model in two languages. The storyteller's vocabulary was made from simple English stories, so
# every Chinese character becomes the three bytes of its UTF-8, one token each:

# %% tags=["check-output"]
for text in ("hello", "你好"):
    ids = llm.tokenizer.encode(text, add_special=False)
    print(f"{text}: {len(ids)} tokens: {[llm.tokenizer.piece(token) for token in ids]}")

# %% [markdown]
# ## 2. The doctor
#
# The doctor runs a list of checks, each with a remedy. On the command line it is `minillama doctor`. When something
# does not work, run it first, and attach its output to your question.

# %%
from minillama.engine import doctor

for finding in doctor.examine():
    print(f"{finding.status.value:5} {finding.name:22} {finding.detail[:110]}")
    if finding.remedy:
        print(f"      → {finding.remedy}")

# %%
from minillama import env

machine = env.describe()
print("processor        ", machine.cpu)
print(
    "cores            ",
    f"{machine.physical_cores} physical, {machine.logical_cores} logical, this process may use "
    f"{len(machine.affinity)}",
)
print("instruction sets ", " ".join(machine.instruction_sets))
print(
    "memory           ",
    *(
        f"{size / 2**30:.1f} GiB"
        for size in (machine.memory_total, machine.memory_available)
        if size
    ),
    "(all, free)",
)
print(
    "devices          ",
    ", ".join(
        f"{device['platform']}:{device['id']} {device['kind']}" for device in doctor.devices()
    ),
)

# %% [markdown]
# How to read it:
#
# * **Physical cores** count for llama.cpp's `--threads`: two logical cores of one physical core share its arithmetic
#   units.
# * **This process may use** fewer cores on a shared hub. JAX uses that number, not the size of the machine.
# * **avx2** is the minimum for a fast kernel. **avx512_vnni** multiplies 8-bit integers, the form of quantised weights.
#   **amx** multiplies tiles of 16 x 32 numbers at once, which makes prompts faster.
# * **Free memory** must hold the weights, the cache of the context, and JAX itself (about 200 MB). For this model:

# %%
for part, size in (
    ("weights", llm.memory.weights),
    ("cache", llm.memory.cache),
    ("computing", llm.memory.compute),
):
    print(f"{part:10} {size / 2**20:6.1f} MiB")
print(f"opened in {llm.load_seconds:.2f} s")

# %% [markdown]
# ## 3. The first call, the second, the third
#
# `jax.jit(f)` does not run your Python code. At the first call it records what `f` does to arrays of this shape
# (*tracing*), the XLA compiler makes machine code of that, and the machine code runs. Later calls with the same shape
# run the machine code directly.

# %%
import time

import jax
import jax.numpy as jnp

from minillama.lab import Prediction, show
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.plots.lab_plots import bars

first_call = Prediction(
    "00",
    "first call over third call",
    "How many times longer than the third call does the first one take?",
    "times",
)
first_call.ask()

# %% tags=["solution"]
first_call.record(3)  # "compiling costs a little"

# %%
# A new constant each time, because minillama keeps compiled programs on disk between sessions.
newcomer = time.time_ns() % 1_000_003


@jax.jit
def network(x):
    """Five layers of a toy network; any function of arrays would do."""
    for layer in range(5):
        x = jnp.tanh(x @ x / x.shape[0] + newcomer / 1e7 + layer)
    return x


def seconds(call):
    """The naive way to time something."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


x = jax.block_until_ready(jnp.full((256, 256), 0.5))
with watched_load():
    waiting = [seconds(lambda: network(x).block_until_ready()) for _ in range(3)]
    queueing = [seconds(lambda: network(x)) for _ in range(3)]
    jax.block_until_ready(network(x))
show(first_call.compare(waiting[0] / waiting[2]))
# %%
labels = [f"{word} call, waiting for the result" for word in ("first", "second", "third")]
labels += [f"{word} call, only queueing" for word in ("fourth", "fifth", "sixth")]
milliseconds = [1e3 * value for value in waiting + queueing]
show(bars(labels, milliseconds, "Six calls of one function", "milliseconds", logarithmic=True))

# %% [markdown]
# Two lessons in one figure.
#
# * **The first call compiles.** A benchmark that includes it measures the compiler. A server that gets a new shape with
#   every request would compile all the time. Therefore engines pad prompts to a few fixed lengths ("buckets").
# * **A call returns before the work is done.** JAX only queues the work (*asynchronous dispatch*), so that Python can
#   prepare the next step. Without `block_until_ready()` you measure the time to queue a call. (The bars "only queueing"
#   may not be shorter: with a single free core, or while earlier work is still queued, a new call must wait.) On a GPU
#   the difference is even larger.
#
# ## 4. Exercise: a benchmark that survives four traps
#
# Write `bench(f, make, clock)`: it returns the typical time of one call `f(x)`. Every call needs a new input, `x =
# make()`, because `f` takes over the memory of its input, as a decode step does with its cache. `clock()` returns
# seconds.
#
# 1. **The compile**: the first call takes seconds.
# 2. **Asynchronous dispatch**: `f` returns at once.
# 3. **Outliers**: sometimes other programs use the machine, and a call takes twenty times as long.
# 4. **The input**: `make()` takes five times as long as `f`, and it is asynchronous too.
#
# The check runs your function on a *simulated* device with its own clock. The simulation has no random noise: the same
# function always gets the same result.


# %% tags=["exercise"]
def bench(f, make, clock=time.perf_counter):
    """Typical seconds of one call of `f(make())`, without the time of `make`."""
    raise NotImplementedError


# %% tags=["solution"]
def bench(f, make, clock=time.perf_counter):
    """Typical seconds of one call of `f(make())`, without the time of `make`."""
    jax.block_until_ready(f(make()))  # compile, and wait until the queue is empty
    times = []
    for _ in range(15):
        x = jax.block_until_ready(make())
        start = clock()
        jax.block_until_ready(f(x))
        times.append(clock() - start)
    return sorted(times)[len(times) // 2]


# %% [markdown] tags=["hint"]
# Warm up: make one call without timing, and wait for it. Then, about ten times: make the input and **wait until it is
# ready**; read the clock; call `f` and wait for the result; read the clock. Return the median,
# `sorted(times)[len(times) // 2]`: an outlier does not change it.

# %% tags=["check"]
from minillama.lab.checks import lab00 as check

check.bench(bench)

# %% [markdown]
# Your function and the naive way, on a real function:

# %%
from minillama.lab.grading.check import attempt


def make():
    """A fresh input."""
    return jnp.full((256, 256), 0.5)


with watched_load():
    honest = attempt(bench, network, make)
    naive = seconds(lambda: network(make()))
print("your bench:   ", f"{1e3 * honest:.2f} ms" if isinstance(honest, float) else honest)
print("naive timing: ", f"{1e3 * naive:.2f} ms")

# %% [markdown]
# ## 5. The same for a model
#
# minillama measures this for you. Every completion has its timings; the compile time is reported separately:

# %%
with watched_load():
    timings = llm.generate("Once upon a time", n=64, temp=0.8, seed=1).timings
print(f"prompt      {timings.prompt_tokens:4} tokens  {timings.prompt_per_second:8.1f} tokens/s")
print(
    f"generation  {timings.generated_tokens:4} tokens  {timings.generated_per_second:8.1f} tokens/s"
)
print(
    f"first token {1e3 * timings.first_token:8.1f} ms, compile {timings.compile:.2f} s, in all "
    f"{timings.total:.2f} s"
)

# %%
slowest = sorted(timings.token_seconds)
parts = {
    "fastest token": slowest[0],
    "median token": slowest[len(slowest) // 2],
    "slowest token": slowest[-1],
    "first token": timings.first_token,
}
show(
    bars(
        list(parts),
        [1e3 * value for value in parts.values()],
        "Tokens are not equally fast",
        "milliseconds",
    )
)
# %% [markdown]
# Run the cell above a few times. The median hardly changes, the slowest token changes a lot. A single number of a
# single run says little about the machine.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * `ml.load()`, `llm.generate(...)`, `llm.stream(...)`: all other labs show what happens inside these calls.
# * Compile before the clock starts. Wait for the result. Make inputs outside of the timed part. Report the median of
#   several runs, and their number.
# * Know your cores, their instruction sets and your free memory before you compare any tokens-per-second figure.
#
# | step | with llama.cpp | with minillama |
# |---|---|---|
# | check the machine | `llama-cli --version`, `llama-cli --list-devices` | `minillama doctor` |
# | first text | `llama-completion -no-cnv -m model.gguf -p "Once upon a time" -n 48` | `minillama completion -p "Once upon a time" -n 48` |
# | an honest benchmark | `llama-bench -m model.gguf` (warm-up, 5 repetitions, mean ± deviation) | `bench` above; lab 05 |
#
# ## When you get an error
#
# * `ModuleNotFoundError: No module named 'minillama'`: the notebook does not run on the Python that has the package.
#   *Kernel → Change Kernel*.
# * `OptionError: ... comes too late: JAX has already started`: threads, platform and devices cannot change after the
#   first computation. *Kernel → Restart*.
# * The kernel dies: out of memory, or a processor without AVX2. The doctor shows the reason.
# * Everything is slow: see *this process may use* above, and check for other programs with `top`.
