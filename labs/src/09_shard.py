# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 09 · Shard
#
# A model that is too large or too slow for one device is split into shards. Splitting is easy. The cost is
# *communication*: at some points of every layer, all devices need the results of the others, in a *collective*
# operation. In this lab you split products by hand, let XLA split a layer, count what the compiled program sends,
# measure the cost of a collective, and start real worker processes. Then you answer the question before buying a second
# machine: how many hosts pay off?
#
# | | |
# |---|---|
# | **Afterwards you can** | split a matrix so that two products need one sum, read the collectives of a compiled program, and predict the gain of a second host before you connect it |
# | **Time** | 90 minutes |
# | **You should know** | lab 03 (attention, feed-forward), lab 05 (a token waits for bytes), lab 08 (Amdahl) |
# | **Runs on** | any laptop (the devices of parts 1 to 4 are virtual), a minute of computing, no network; the worker processes of part 5 need Linux or macOS |
# | **In llama.cpp** | `ggml-rpc-server`, `--rpc host:port,...`, `--split-mode layer\|row\|tensor`, `--tensor-split 3,1`, `--main-gpu` |

# %%
import minillama as ml

# First of all: let JAX use one processor as eight devices. The data between them is really copied, inside one machine.
ml.env.prepare(cpu_devices=8, platform="cpu")

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from minillama.lab import Dropdown, Panel, Prediction, Slider, collect, running, show
from minillama.lab.checks import lab09 as check
from minillama.lab.distributed import cluster_simulator as sim
from minillama.lab.distributed.cluster_simulator import (
    HOME,
    LINKS,
    LLAMA_70B,
    Cluster,
    Host,
    Model,
    Parallelism,
)
from minillama.lab.distributed.virtual_devices import (
    SHAPES,
    layer_ledger,
    layer_shapes,
    on_each_device,
    step_ledger,
    virtual_mesh,
)
from minillama.lab.distributed.worker_processes import time_all_reduce, token_seconds
from minillama.lab.experiments.counted_passes import big_model
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, model_file, model_name
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.measurement_plots import sweep
from minillama.lab.plots.sharding_plots import device_grid, host_curves, ledger_bars, scaling
from minillama.lab.widgets.figure import text_table
from minillama.measure.limits.all_reduce import all_reduce_seconds
from minillama.measure.limits.collective_traffic import sent_bytes, tensor_parallel_bytes
from minillama.measure.limits.work_per_token import prompt_weights, weight_bytes
from minillama.parallel.sharding.partition_specs import SPECS

MODEL = None  # or the path of your own GGUF file
mesh = virtual_mesh()
mesh

# %% [markdown]
# ## 1. Two ways to split a product
#
# GGUF stores a matrix as [N, K]: a row for every output, a column for every input, and the product is `x @ w.T`. The
# devices form one axis of a *mesh*, called `"tensor"`. There are two ways to split the matrix over it:
#
# * **by rows**, `P("tensor", None)`: a device has the rows of some outputs. It needs *all* of x, and computes *its own
#   part of the output* completely.
# * **by columns**, `P(None, "tensor")`: a device has the columns of some inputs. It needs only *its part of x*, and
#   computes *all* outputs, but only a part of each sum.
#
# `jax.shard_map` runs a function on each device with the device's own parts. By rows:

# %% tags=["check-output"]
random = np.random.default_rng(9)
x, w = (random.normal(size=shape).astype(np.float32) for shape in ((2, 64), (24, 64)))


def by_rows(x, w):
    """A device's outputs; x is whole, w has this device's rows."""
    return x @ w.T


found = on_each_device(by_rows, (P(), P("tensor", None)), x, w)
print("on each device:", found.results.shape[1:], "of", (2, 24))
print(
    "joined, equal to the dense product:",
    np.allclose(np.concatenate(found.results, axis=1), x @ w.T, atol=1e-4),
)
print("sent:", check.collectives_text(found.ledger))

# %% [markdown]
# Nothing is sent, and no device has the whole result. (`on_each_device` returns the result of every device:
# `minillama/lab/distributed/virtual_devices.py`.)
#
# ### Exercise 1: by columns
# Now x *and* w are split by columns; the result above has this form. Return the **whole** product on **every** device.
# Inside of `shard_map`, `jax.lax.psum(array, "tensor")` sums an array over the devices: an *all-reduce*. The check
# tests all devices and the compiled program.


# %% tags=["exercise"]
def by_columns(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w.T, whole on every device, of local columns x [T, K/8], w [N, K/8]."""
    raise NotImplementedError


# %% tags=["solution"]
def by_columns(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w.T, whole on every device, of local columns x [T, K/8], w [N, K/8]."""
    return jax.lax.psum(x @ w.T, "tensor")


# %% [markdown] tags=["hint"]
# A sum over K is the sum over the devices of the sums over their own columns. Multiply the local parts, then use one
# psum.

# %% tags=["check"]
check.by_columns(by_columns)

# %% [markdown]
# Combine the two: *by rows* gives exactly the parts that *by columns* needs. Two products in sequence, the first split
# by rows and the second by columns, need one collective. Elementwise functions such as SiLU fit between them (Shoeybi
# et al., *Megatron-LM*, 2019).
#
# ### Exercise 2: a feed-forward with one psum
# `silu(x @ gate.T) * (x @ up.T)`, and that times `down.T`. A device has all of x, its rows of gate and up, and its
# columns of down. Return the whole result on every device, with **exactly one** psum. `jax.nn.silu` is allowed.


# %% tags=["exercise"]
def feed_forward(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """SwiGLU over the devices, whole on each of them."""
    raise NotImplementedError


# %% tags=["solution"]
def feed_forward(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """SwiGLU over the devices, whole on each of them."""
    hidden = jax.nn.silu(x @ gate.T) * (x @ up.T)  # this device's part of the hidden layer
    return jax.lax.psum(hidden @ down.T, "tensor")


# %% [markdown] tags=["hint"]
# The hidden numbers of this device need no other device. They are exactly the input of its columns of down. Where are
# the parts of *one* sum on different devices?

# %% tags=["check"]
check.feed_forward(feed_forward)

# %% [markdown]
# ## 2. Let XLA split a layer
#
# `shard_map` defines the work of each device. The other way: write the layer for one device and specify only **the
# placement of the weights**; XLA's partitioner inserts the collectives. The result is always right. The compiled
# program shows the cost. For example, everything split by rows looks simple:

# %% tags=["check-output"]
print(*(f"{name:12} {rows} × {columns}" for name, (rows, columns) in SHAPES.items()), sep="\n")
tidy = layer_ledger({name: P("tensor", None) for name in SHAPES})
print(
    "all by rows:",
    check.collectives_text(tidy),
    f"= {sent_bytes(tidy):,.0f} bytes sent by each device, for 4 tokens",
)

# %% [markdown]
# ### Exercise 3: choose the PartitionSpecs
# Return a dict from the seven names to `P("tensor", None)` (rows) or `P(None, "tensor")` (columns), so that every
# device holds an eighth of every matrix and the compiled layer has **at most two all-reduces** and no other collective.
# The check compiles your choice and counts.


# %% tags=["exercise"]
def specs() -> dict[str, P]:
    """PartitionSpec of each matrix [N, K] of a layer."""
    raise NotImplementedError


# %% tags=["solution"]
def specs() -> dict[str, P]:
    """PartitionSpec of each matrix [N, K] of a layer."""
    rows, columns = P("tensor", None), P(None, "tensor")
    return {
        "attn_q": rows,  # heads: a device computes the attention of its own heads, alone
        "attn_k": rows,
        "attn_v": rows,
        "attn_output": columns,
        "ffn_gate": rows,
        "ffn_up": rows,
        "ffn_down": columns,
    }


# %% [markdown] tags=["hint"]
# A layer consists of two pairs as in exercise 2. Attention is one: rows of `attn_q`, `attn_k`, `attn_v` are heads, and
# a head needs no other head. Which matrix uses the heads' results? Of the 128 ways to split seven matrices exactly one
# passes.

# %% tags=["check"]
check.specs(specs)

# %% tags=["check-output"]
chosen = attempt(specs)
if isinstance(chosen, dict):
    mine = layer_ledger(chosen)
    print(
        "yours:",
        check.collectives_text(mine),
        f"= {sent_bytes(mine):,.0f} bytes sent by each device, for 4 tokens",
    )
else:
    print(chosen)

# %% [markdown]
# ## 3. The real model on 2 and 4 devices
#
# minillama has one table from a tensor's name to its PartitionSpec: `minillama/parallel/sharding/partition_specs.py`.
# The GGUF file's bytes go to the devices in whole quantisation blocks, the KV cache is split by heads, and each device
# runs the same CPU kernels on its part. In llama.cpp this is `--split-mode tensor` (and, for single matrices only,
# `row`), over local GPUs. (This section stays with the storyteller: it loads a model three times, on devices that share your
# cores.)

# %%
alone = lab_model(None)
llms = {devices: lab_model(None, tensor_parallel=devices) for devices in (2, 4)}
shapes = layer_shapes(alone)
show(
    device_grid(
        shapes, {name: SPECS[name] for name in shapes}, 4, "A layer of the storyteller on 4 devices"
    )
)

# %% [markdown]
# Each device holds a quarter of each matrix of the layer. First check: is the text the same?

# %% tags=["check-output"]
with running("1, 2 and 4 devices compile their programs", steps=3) as step:
    for devices, llm in {1: alone, **llms}.items():
        print(devices, llm.generate("Once upon a time", n=16, temp=0.0).text)
        step()

# %% [markdown]
# Now the **ledger**: the collectives of the compiled step that generates one token, sampling included, read from XLA's
# text (`compiled.as_text()`, `minillama/measure/limits/collective_traffic.py`).

# %%
with running("a step is compiled, and its collectives are counted", steps=2) as step:
    for devices, llm in llms.items():
        title = f"One token of the storyteller on {devices} devices"
        show(ledger_bars(step_ledger(llm), title))
        step()

# %% [markdown]
# Three layers with two collectives each, as in your choice. The last line is the sampler: each device has the logits of
# its part of the vocabulary and sends only its best candidates, not the logits.
#
# But these are all-*gathers*! On processors, every device sends its terms to all others, and each device adds them up.
# For a payload as small as one token's, the cost of a message is its *latency*, and a gather needs half as many
# sequential messages as the classical ring all-reduce. For the large payloads of a prompt the opposite is true: there,
# with more than two devices, minillama uses the all-reduce.
#
# ### Exercise 4: bytes that a pass sends
# In a **ring** of n devices an array is split into n pieces. Each device sends a piece to its neighbour n − 1 times,
# until every piece is summed on one device, and n − 1 times more, until all devices have all pieces. How many bytes
# does **each device send** in a pass of `tokens` tokens, `width` float32 numbers each, through `layers` layers, with
# rings?


# %% tags=["exercise"]
def bytes_sent(layers: int, width: int, tokens: int, devices: int) -> float:
    """Bytes that each device sends in a pass."""
    raise NotImplementedError


# %% tags=["solution"]
def bytes_sent(layers: int, width: int, tokens: int, devices: int) -> float:
    """Bytes that each device sends in a pass."""
    return layers * 2 * (2 * (devices - 1) / devices) * tokens * width * 4


# %% [markdown] tags=["hint"]
# How many all-reduces has a layer? How many bytes has a piece? How many pieces does a device send in each all-reduce?
# With one device the result is 0.

# %% tags=["check"]
check.bytes_sent(bytes_sent)

# %% tags=["check-output"]
layers, width = alone.config.block_count, alone.config.embedding_length
for devices, llm in llms.items():
    counted = sent_bytes(step_ledger(llm)[:1])
    gathered = tensor_parallel_bytes(layers, width, 1, devices, by_exchange=True)
    print(
        f"{devices} devices: ledger {counted:,.0f}, formula of the gather {gathered:,.0f}, of "
        "the ring (yours)",
        attempt(bytes_sent, layers, width, 1, devices),
    )

# %% [markdown]
# With two devices both send the same. It is a few kilobytes a token: so the *bytes* are not the main cost of a
# collective.
#
# ## 4. The cost of a collective
#
# Measure it: all-reduces of several sizes, between two virtual devices of this process, and between two processes,
# which is the best approximation of two machines on one.

# %%
SIZES = (256, 4096, 16384, 65536, 262144)
farther = Prediction(
    "09",
    "sum between processes over between virtual devices",
    "How many times longer does a sum of 4 KB take between two processes than between two "
    "virtual devices?",
    "times",
)
farther.ask()

# %% tags=["solution"]
farther.record(3)  # "the same memory, the same processor"

# %%
with running("sums between virtual devices, then between two processes", seconds=10):
    virtual = all_reduce_seconds(virtual_mesh(2), SIZES)
    processes = attempt(time_all_reduce, 2, SIZES)
if isinstance(processes, dict):
    show(farther.compare(processes[4096] / virtual[4096]))
else:
    print(processes, "- continuing with 0.2 ms and 1 GB/s instead of a measurement")
    processes = {size: 2e-4 + size / 1e9 for size in SIZES}

# %%
here, link = sim.fit_link(virtual), sim.fit_link(processes)
measurement("09", "latency of a sum between two processes", 1e6 * link.latency, "µs")
show(
    sweep(
        {
            name: {size / 1024: 1e6 * taken for size, taken in points.items()}
            for name, points in (("virtual devices", virtual), ("processes", processes))
        },
        {
            name: {size / 1024: 1e6 * found.seconds(size) for size in SIZES}
            for name, found in (("virtual devices", here), ("processes", link))
        },
        "A sum over two devices",
        "KB",
        "microseconds",
    )
)
print(f"virtual devices: {1e6 * here.latency:.0f} µs + bytes / {here.bandwidth / 1e9:.2f} GB/s")
print(f"processes:       {1e6 * link.latency:.0f} µs + bytes / {link.bandwidth / 1e9:.2f} GB/s")

# %% [markdown]
# The dashed line is *latency + bytes / bandwidth*. For the payload of one token (4 KB for a width of about a thousand
# numbers, 32 KB for a 70B model) it is almost all latency. So the rule of thumb: **a token under tensor parallelism
# takes its share of the work, plus two latencies per layer.**
#
# The other way is to distribute **whole layers**: device 0 has the first half, device 1 the second. A token then needs
# one message per *boundary*, not two collectives per layer. But while one device works, the other waits, so a single
# user's tokens are not faster. A pipeline helps only with several chunks of work, as in a long prompt, or with several
# users. llama.cpp calls it `--split-mode layer`, its default. Over the network (`ggml-rpc-server`, `--rpc`) llama.cpp
# has only this way: the client sends the activations to a server, receives the result, and sends it to the next server.
# **RPC adds memory, never speed.** With the measured numbers, for a model of 32 layers that takes 40 ms a token on one
# host:

# %%
toy = Cluster(
    Model("32 layers", 1e9, 1e9, 32, 4096), Host(bandwidth=25e9, flops=1e12, memory=1e9), link
)
rows = [
    (
        way,
        *(f"{1e3 * sim.seconds(toy, hosts, way):.1f} ms" for hosts in (1, 2, 4)),
        f"{toy.model.layers * 2 if way is Parallelism.TENSOR else hosts}",
    )
    for way, hosts in (
        (Parallelism.TENSOR, 0),
        (Parallelism.LAYER, "n - 1"),
        (Parallelism.RPC, "2 n"),
    )
]
print(text_table(("one token", "1 host", "2 hosts", "4 hosts", "collectives or messages"), rows))

# %% [markdown]
# ## 5. Real workers
#
# On real machines you type, in three terminals (the first two on other hosts, with `--host 0.0.0.0 --token-file
# token`):
#
#     minillama worker --port 50052 -t 1
#     minillama worker --port 50053 -t 1
#     minillama run --workers 127.0.0.1:50052,127.0.0.1:50053 -m model.gguf -p "Once upon a time"
#
# In llama.cpp: `ggml-rpc-server -p 50052 -t 1` and `llama-cli --rpc 127.0.0.1:50052,...`. Here the notebook starts the
# workers itself, with one thread each, leads them, and stops them at the end of the cell. They also end if you
# interrupt the cell or if this kernel dies: each has a guard process (`minillama/lab/distributed/process_guard.py`).
# The model is yours, or one of 275 MB of random weights in float32, so that a token has enough work to share. (Yours must
# divide over the workers: an even number of heads, for example.)

# %%
second = Prediction(
    "09",
    "two processes over one",
    "Two worker processes of one thread each, on this machine: how many times faster than one "
    "such process?",
    "times",
)
second.ask()

# %% tags=["solution"]
second.record(1.6)

# %%
model = model_file(MODEL, lambda: big_model("F32"))
counts = (1, 2)  # with four cores or more, try (1, 2, 4)
REPETITIONS = 4 if MODEL else 10
runs = (
    attempt(lambda count=count: token_seconds(model, count, repetitions=REPETITIONS))
    for count in counts
)
tokens = dict(zip(counts, collect(runs, "numbers of processes", len(counts)), strict=True))
lost = [taken for taken in tokens.values() if not isinstance(taken, float)]
if lost:
    tokens = {1: 0.020, 2: 0.014}
    print(
        f"{lost[0]}\nNothing is recorded. Run the cell again, or continue with the numbers of "
        "another machine:"
    )
print(
    *(f"{count} processes: {1e3 * taken:.1f} ms a token" for count, taken in tokens.items()),
    sep="\n",
)

# %%
opened = lab_model(model, ctx_size=512)
collectives = 2 * opened.config.block_count + 1
collective_seconds = link.seconds(4 * opened.config.embedding_length)
law = sim.fit_scaling(tokens, collectives, round=collective_seconds)
faster = {count: tokens[1] / taken for count, taken in tokens.items()}
print(
    f"a collective: {1e6 * collective_seconds:.0f} µs alone (part 4), {1e6 * law.round:.0f} µs "
    "by the law"
)
if not lost:
    show(
        second.compare(
            faster[2], model=tokens[1] / (tokens[1] / 2 + collectives * collective_seconds)
        )
    )
# %%
show(scaling(faster, law, "Strong scaling: one model, more processes"))

# %% [markdown]
# *Model says*: half of one process's time, plus thirteen collectives at the measured cost. The fitted law has three
# parts: **serial** work (the leader's work, sampling, starting programs: a second process cannot share it),
# **parallel** work, and the **collectives**. Serial work bounds the gain, as in lab 08. But the collectives are worse:
# their time *grows* with the number of processes. So there is a best number, and beyond it every further process makes
# a token slower.
#
# A collective also lasts until the *last* process arrives. If a busy machine delays one process, both wait, thirteen
# times a token. If the law's collectives are much longer than those of part 4, this is the reason; two processes may
# then be slower than one. (This lab's solutions ran on two cores. While other programs used these cores too, two
# processes reached 0.4 to 0.9 of the speed of one; an idle minute later, they were faster than one.) One slow host
# makes all hosts slow: this is also true for clusters, and a faster network does not help.
#
# ### Exercise 5: break-even
# One host takes `seconds` for a token, and `hosts` hosts share that work evenly. A token has `collectives` collectives.
# What is the longest time of **one** collective with which all these hosts are not slower than one host? The check also
# uses your own machine's numbers.


# %% tags=["exercise"]
def break_even(seconds: float, collectives: int, hosts: int) -> float:
    """Seconds of a collective at which many hosts are as fast as one."""
    raise NotImplementedError


# %% tags=["solution"]
def break_even(seconds: float, collectives: int, hosts: int) -> float:
    """Seconds of a collective at which many hosts are as fast as one."""
    return seconds * (1 - 1 / hosts) / collectives


# %% [markdown] tags=["hint"]
# seconds / hosts + collectives × time = seconds. Solve for the time of one collective.

# %% tags=["check"]
check.own.on(tokens[1], collectives, 2)
check.break_even(break_even)

# %%
may = attempt(break_even, tokens[1], collectives, 2)
if isinstance(may, float):
    measurement(
        "09", "collective over break-even, two processes", collective_seconds / may, "share"
    )
    print(
        f"two processes pay off if a collective takes less than {1e6 * may:.0f} µs; here it "
        f"takes {1e6 * collective_seconds:.0f} µs"
    )
    home = attempt(break_even, 0.698, 160, 2)
    print(
        "for the 70B model below, two hosts pay off if a collective takes less than "
        f"{1e3 * home:.1f} ms"
    )
else:
    print(may)

# %% [markdown]
# ## 6. 2 to 256 hosts
#
# You do not have 256 hosts, but a token's time is a sum of few terms, and you have measured all of them: work / n, and
# two collectives per layer. `minillama/lab/distributed/cluster_simulator.py` adds them up, for three ways to distribute
# a model and four all-reduce algorithms; every formula is in its docstring. First test it: what does it predict for the
# points measured here?

# %%
mine = Model(
    model_name(MODEL, "random weights"),
    weight_bytes(opened.file, opened.config),
    prompt_weights(opened.file, opened.config) if MODEL else 69e6,
    opened.config.block_count,
    opened.config.embedding_length,
)
this = Host(
    bandwidth=mine.weight_bytes / tokens[1], flops=1e12, memory=1e9
)  # from one process alone
measured_here = Cluster(
    mine, this, link
)  # the link is part 4's; nothing is fitted to two processes
rows = [
    (
        f"{row.hosts}",
        f"{1e3 * row.measured:.1f} ms",
        f"{1e3 * row.simulated:.1f} ms",
        f"{row.error_factor:.2f}",
    )
    for row in sim.compare_with_measured(measured_here, Parallelism.TENSOR, tokens)
]
print(text_table(("processes", "measured", "simulation", "error factor"), rows))

# %% [markdown]
# ### 70B on home machines
# Llama 3.1 70B in Q4_K_M has 42 GB. You have machines with 32 GB each and two channels of DDR5 (60 GB/s). What do a
# second and a third one gain?

# %%
at_home = Prediction(
    "09",
    "70B on two home machines",
    "70B on two home machines with gigabit Ethernet (0.2 ms): how many times faster than one "
    "with enough memory?",
    "times",
)
at_home.ask()

# %% tags=["solution"]
at_home.record(1.2)  # gigabit is slow

# %% tags=["check-output"]
homes = {name: Cluster(LLAMA_70B, HOME, its) for name, its in LINKS.items()}
rows = [
    (
        name,
        f"{1e3 * home.link.latency:g} ms",
        f"×{sim.second_host_speed_up(home, Parallelism.TENSOR):.2f}",
        f"×{sim.second_host_speed_up(home, Parallelism.RPC):.2f}",
        str(sim.worthwhile_hosts(home, Parallelism.TENSOR)),
        f"{1 / sim.seconds(home, sim.worthwhile_hosts(home, Parallelism.TENSOR), Parallelism.TENSOR):.1f}",
    )
    for name, home in homes.items()
]
print(
    f"to hold the weights: {sim.fewest_hosts(homes['1 GbE'])} hosts; one alone would reach "
    f"{1 / sim.seconds(homes['1 GbE'], 1, Parallelism.TENSOR):.1f} tokens/s"
)
print(
    text_table(
        ("link", "latency", "2nd host, tensor", "2nd host, RPC", "hosts worth it", "tokens/s then"),
        rows,
    )
)

# %%
predicted = {} if at_home.recorded() is None else {"you predicted": at_home.recorded()}
answers = predicted | {
    "the simulation says": sim.second_host_speed_up(homes["1 GbE"], Parallelism.TENSOR)
}
show(bars(list(answers), list(answers.values()), at_home.name, "times faster"))
# %%
COUNTS = range(1, 257)
show(
    host_curves(
        {name: sim.speeds(home, COUNTS, Parallelism.TENSOR) for name, home in homes.items()},
        "Llama 70B Q4_K_M on home machines, tensor parallel",
        needed=2,
    )
)

# %% [markdown]
# (A host is "worth it" if it makes a token at least a tenth faster.) Gigabit Ethernet is better than expected: 32 KB
# per collective take 0.3 ms, and reading half of the weights takes 350 ms. Wi-Fi is too slow because of its latency,
# not its bandwidth. And 256 hosts are slower than 4. The curves do not include these effects: this model has 8
# key/value heads, so with more than 8 hosts keys and values are stored twice; switches and other traffic; and unequal
# hosts, because all wait for the slowest.
#
# Try it: **latency** moves the maximum; **bandwidth** has almost no effect on a token and a large effect on a prompt.

# %%
MODELS = {
    "Llama 70B Q4_K_M": LLAMA_70B,
    "Llama 8B Q4_K_M": Model("8B", 4.6e9, 7.5e9, 32, 4096),
    "what ran here": mine,
}
TESTS = {"one token": 1, "a prompt of 2048": 2048}


def simulate(settings):
    """The curves without widgets: settings in, figure out."""
    link = sim.Link(settings["latency"] / 1e3, settings["gigabits"] * 1e9 / 8)
    host = Host(settings["memory"] * 1e9, HOME.flops, HOME.memory)
    chosen = Cluster(MODELS[settings["model"]], host, link)
    tokens = TESTS[settings["test"]]
    title = f"{settings['model']}, {settings['test']}: {settings['latency']:g} ms, {settings['gigabits']:g} Gbit/s"
    curves = {way: sim.speeds(chosen, COUNTS, way, tokens) for way in Parallelism}
    return host_curves(curves, title, needed=sim.fewest_hosts(chosen))


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown("model", "model", tuple(MODELS), "Llama 70B Q4_K_M", "the distributed model"),
        Dropdown(
            "test",
            "what is timed",
            tuple(TESTS),
            "one token",
            "a token depends on latency, a prompt on bandwidth",
        ),
        Slider("latency", "latency, ms", 0.01, 3.0, 0.01, 0.2, "of one message from host to host"),
        Slider("gigabits", "link, Gbit/s", 0.1, 25.0, 0.1, 1.0, "of each host, each way"),
        Slider(
            "memory", "memory, GB/s", 20.0, 400.0, 10.0, 60.0, "that each host reads its weights at"
        ),
    ],
    simulate,
).show()

# %% [markdown]
# The same without widgets: at which latency does the best number of hosts fall to one? (Gigabit, as above.)

# %% tags=["check-output"]
for latency in (0.02, 0.2, 0.5, 1.0, 2.0, 3.0):
    chosen = Cluster(LLAMA_70B, HOME, sim.Link(latency / 1e3, 0.125e9))
    best = sim.fastest_hosts(chosen, Parallelism.TENSOR)
    how = (
        sim.fastest_algorithm(chosen.link, 4 * LLAMA_70B.width, best)
        if best > 1
        else "none: the second host slows it down"
    )
    print(
        f"{latency:4} ms: {best:2} hosts, "
        f"{1 / sim.seconds(chosen, best, Parallelism.TENSOR):.2f} tokens/s, all-reduce: {how}"
    )

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Split the first of two products by rows and the second by columns: one collective for the pair, two for a layer.
# * XLA gives the right result for any PartitionSpec. The compiled program shows the cost: count the collectives.
# * A token sends little data in many collectives: **latency** decides. A prompt sends much data: **bandwidth** decides.
# * Tensor parallelism divides work and memory, and costs 2 × layers collectives a token. Layer parallelism divides
#   memory, but a single user's token is not faster. RPC adds memory, never speed.
# * seconds(n) = serial + parallel / n + collectives(n): there is a best n, and it is small.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | share a machine | `ggml-rpc-server -H 0.0.0.0 -p 50052 -t N` | `minillama worker --host 0.0.0.0 --port 50052 -t N --token-file token` |
# | use them | `--rpc host:port,...` | `--workers host:port,...` (or `--rpc`) |
# | split every layer | `--split-mode tensor` (local GPUs) | tensor parallel over devices and hosts; `ml.load(tensor_parallel=N)` |
# | distribute layers | `--split-mode layer`, also over RPC | `--split-mode layer` |
# | uneven shares | `--tensor-split 3,1` | the same, for layers |
# | access | anyone: no authentication | a shared secret, compared in constant time; not encrypted |
# | a peer dies | the client aborts | one line, the text so far is kept |
#
# ## When you get an error
#
# * `JAX started with 1 devices`, or `cpu_devices=8 comes too late`: restart the kernel and run the first cell first.
# * `unbound axis name`: the axis is called `"tensor"`, and exists only inside of `shard_map`.
# * `the worker on port ... ended at once`: the text after it is the worker's last line.
# * Part 5 takes much longer than a minute, or two processes are slower than one: another program runs (`top`). Two
#   processes that wait for each other are delayed twice.
# * `query heads ... do not divide among`: a head cannot be split. The message lists the possible numbers of devices.
