# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 09 · Shard
#
# A model that is too large or too slow for one device is cut into pieces. Cutting is easy. What costs is that the pieces have to *meet*: at some points of
# every layer, all devices must know what the others found. This lab cuts products by hand, lets XLA cut a layer, counts what the compiled program sends, measures what
# meeting costs, starts real worker processes, and then asks the question that decides about buying a second machine: how many hosts are worth it?
#
# | | |
# |---|---|
# | **Afterwards you can** | cut a matrix so that two products need one sum, read the collectives out of a compiled program, say what a second host gives before you plug it in |
# | **Time** | 90 minutes |
# | **You should know** | lab 03 (attention, feed-forward), lab 05 (a token waits for bytes), lab 08 (Amdahl) |
# | **Runs on** | any laptop (the devices of parts 1 to 4 are pretended), a minute of computing, no network; the worker processes of part 5 need Linux or macOS |
# | **In llama.cpp** | `ggml-rpc-server`, `--rpc host:port,...`, `--split-mode layer\|row\|tensor`, `--tensor-split 3,1`, `--main-gpu` |

# %%
import minillama as ml

# Before anything else: let JAX see eight devices where there is one processor. What is sent between them is real, only the wire is short.
ml.env.prepare(cpu_devices=8, platform="cpu")

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from minillama.lab import Dropdown, Panel, Prediction, Slider, show
from minillama.lab.checks import lab09 as check
from minillama.lab.distributed import cluster_simulator as sim
from minillama.lab.distributed.cluster_simulator import HOME, LINKS, LLAMA_70B, Cluster, Host, Model, Parallelism
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
from minillama.lab.grading.lab_record import measurement
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.measurement_plots import sweep
from minillama.lab.plots.sharding_plots import device_grid, host_curves, ledger_bars, scaling
from minillama.lab.widgets.figure import text_table
from minillama.measure.limits.all_reduce import all_reduce_seconds
from minillama.measure.limits.collective_traffic import sent_bytes, tensor_parallel_bytes
from minillama.measure.limits.work_per_token import weight_bytes
from minillama.parallel.sharding.partition_specs import SPECS

mesh = virtual_mesh()
mesh

# %% [markdown]
# ## 1. Two ways to cut a product
#
# GGUF stores a matrix as [N, K]: a row for every output, a column for every input, and the product is `x @ w.T`. With the devices in a row, an axis of the *mesh* called
# `"tensor"`, there are two ways to cut it:
#
# * **by rows**, `P("tensor", None)`: a device has some of the outputs' rows. It needs *all* of x, and gets *its own part of the output*, finished.
# * **by columns**, `P(None, "tensor")`: a device has some of the inputs' columns. It needs only *its part of x*, and gets *all* outputs, but of each only a part of the sum.
#
# `jax.shard_map` runs a function on each device, which sees its own parts. By rows:

# %% tags=["check-output"]
random = np.random.default_rng(9)
x, w = (random.normal(size=shape).astype(np.float32) for shape in ((2, 64), (24, 64)))


def by_rows(x, w):
    """A device's outputs; x is whole, w has this device's rows."""
    return x @ w.T


found = on_each_device(by_rows, (P(), P("tensor", None)), x, w)
print("on each device:", found.results.shape[1:], "of", (2, 24))
print("side by side the dense product:", np.allclose(np.concatenate(found.results, axis=1), x @ w.T, atol=1e-4))
print("sent:", check.collectives_text(found.ledger))

# %% [markdown]
# Nothing is sent, and no device has the whole result. (`on_each_device` shows what lies on every device: `minillama/lab/distributed/virtual_devices.py`.)
#
# ### Exercise 1: by columns
# Now x *and* w are cut by columns, as the result above would come. Return the **whole** product, on **every** device. Inside of `shard_map` the devices add up an array with
# `jax.lax.psum(array, "tensor")`: an *all-reduce*. The check looks at all devices, and into the compiled program.


# %% tags=["exercise"]
def by_columns(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w.T, whole on every device; x [T, K/8] and w [N, K/8] are this device's columns."""
    raise NotImplementedError


# %% tags=["solution"]
def by_columns(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w.T, whole on every device; x [T, K/8] and w [N, K/8] are this device's columns."""
    return jax.lax.psum(x @ w.T, "tensor")


# %% [markdown] tags=["hint"]
# A sum over K is the sum over the devices of the sums over their own columns. Multiply what is here, then one psum.

# %% tags=["check"]
check.by_columns(by_columns)

# %% [markdown]
# Look at both together: *by rows* gives exactly the parts that *by columns* wants. Two products, one behind the other, cut the first way and then the second, meet once. Anything that
# works on single numbers, such as SiLU, fits between (Shoeybi et al., *Megatron-LM*, 2019).
#
# ### Exercise 2: a feed-forward with one psum
# `silu(x @ gate.T) * (x @ up.T)`, and that times `down.T`. A device has all of x, its rows of gate and up, its columns of down. The dense result, on every device, with
# **exactly one** psum. `jax.nn.silu` is allowed.


# %% tags=["exercise"]
def feed_forward(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """SwiGLU over the devices, whole on each of them."""
    raise NotImplementedError


# %% tags=["solution"]
def feed_forward(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """SwiGLU over the devices, whole on each of them."""
    hidden = jax.nn.silu(x @ gate.T) * (x @ up.T)  # this device's numbers of the hidden layer
    return jax.lax.psum(hidden @ down.T, "tensor")


# %% [markdown] tags=["hint"]
# The hidden numbers of this device need nobody else. They are just what its columns of down want. So where do the parts of *one* sum lie on different devices?

# %% tags=["check"]
check.feed_forward(feed_forward)

# %% [markdown]
# ## 2. Let XLA cut a layer
#
# `shard_map` says what each device does. The other way: write the layer as for one device, say only **where the weights lie**, and XLA's partitioner finds out what has to be sent. It always
# gets the right result. What it costs is in the compiled program. Everything cut by rows, say, looks tidy:

# %% tags=["check-output"]
print(*(f"{name:12} {rows} × {columns}" for name, (rows, columns) in SHAPES.items()), sep="\n")
tidy = layer_ledger({name: P("tensor", None) for name in SHAPES})
print("all by rows:", check.collectives_text(tidy), f"= {sent_bytes(tidy):,.0f} bytes sent by each device, for 4 tokens")

# %% [markdown]
# ### Exercise 3: choose the PartitionSpecs
# Return a dict from the seven names to `P("tensor", None)` (rows) or `P(None, "tensor")` (columns), so that every device holds an eighth of every matrix and the
# compiled layer has **at most two all-reduces** and nothing else. The check compiles your choice and counts.


# %% tags=["exercise"]
def specs() -> dict[str, P]:
    """Where each matrix [N, K] of a layer is cut."""
    raise NotImplementedError


# %% tags=["solution"]
def specs() -> dict[str, P]:
    """Where each matrix [N, K] of a layer is cut."""
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
# A layer is two pairs of exercise 2. Attention is one: rows of `attn_q`, `attn_k`, `attn_v` are heads, and a head needs no other head. Which matrix takes the heads' results? Of the 128 ways to
# cut seven matrices exactly one passes.

# %% tags=["check"]
check.specs(specs)

# %% tags=["check-output"]
chosen = attempt(specs)
if isinstance(chosen, dict):
    mine = layer_ledger(chosen)
    print("yours:", check.collectives_text(mine), f"= {sent_bytes(mine):,.0f} bytes sent by each device, for 4 tokens")
else:
    print(chosen)

# %% [markdown]
# ## 3. The real model on 2 and 4 devices
#
# minillama has one table from a tensor's name to its PartitionSpec: `minillama/parallel/sharding/partition_specs.py`. The GGUF file's bytes go to the devices in whole quantisation blocks, the KV cache goes with the
# heads, and each device runs the same CPU kernels as ever on its part. In llama.cpp this is `--split-mode tensor` (and, for single matrices only, `row`), over local GPUs.

# %%
alone = ml.load(progress=False)
llms = {devices: ml.load(tensor_parallel=devices, progress=False) for devices in (2, 4)}
shapes = layer_shapes(alone)
show(device_grid(shapes, {name: SPECS[name] for name in shapes}, 4, "A layer of the storyteller on 4 devices"))

# %% [markdown]
# Before every device holds a quarter of each matrix of the layer, one thing has to be checked: is the text the same?

# %% tags=["check-output"]
for devices, llm in {1: alone, **llms}.items():
    print(devices, llm.generate("Once upon a time", n=16, temp=0.0).text)

# %% [markdown]
# Now the **ledger**: the collectives of the compiled step that makes one token, sampling included, read out of XLA's text (`compiled.as_text()`, `minillama/measure/limits/collective_traffic.py`).

# %%
for devices, llm in llms.items():
    show(ledger_bars(step_ledger(llm), f"One token of the storyteller on {devices} devices"))

# %% [markdown]
# Three layers, two meetings each, as you chose. The last line is the sampler: each device has the logits of its part of the vocabulary, and only the best candidates of each
# travel, not the logits.
#
# But these are all-*gathers*! On processors minillama lets every device give its terms to all others, who then add them up themselves: for a payload as small as
# one token's, what a message costs is its *latency*, and a gather needs half as many messages, one after the other, as the classical ring all-reduce. For the large payloads of a
# prompt it is the other way round: there, with more than two devices, minillama takes the all-reduce.
#
# ### Exercise 4: bytes that a pass sends
# In a **ring** of n devices an array is cut into n pieces. Each device sends a piece to its neighbour n − 1 times until every piece is added up somewhere, and n − 1 times more until all have all.
# How many bytes does **each device send** in a pass of `tokens` tokens, `width` float32 numbers each, through `layers` layers, with rings?


# %% tags=["exercise"]
def bytes_sent(layers: int, width: int, tokens: int, devices: int) -> float:
    """Bytes that each device sends in a pass."""
    raise NotImplementedError


# %% tags=["solution"]
def bytes_sent(layers: int, width: int, tokens: int, devices: int) -> float:
    """Bytes that each device sends in a pass."""
    return layers * 2 * (2 * (devices - 1) / devices) * tokens * width * 4


# %% [markdown] tags=["hint"]
# How often does a layer meet? How large is a piece, in bytes? How many pieces does a device send each time? With one device it is 0.

# %% tags=["check"]
check.bytes_sent(bytes_sent)

# %% tags=["check-output"]
layers, width = alone.config.block_count, alone.config.embedding_length
for devices, llm in llms.items():
    counted = sent_bytes(step_ledger(llm)[:1])
    gathered = tensor_parallel_bytes(layers, width, 1, devices, by_exchange=True)
    print(
        f"{devices} devices: ledger {counted:,.0f}, formula of the gather {gathered:,.0f}, of the ring (yours)",
        attempt(bytes_sent, layers, width, 1, devices),
    )

# %% [markdown]
# With two devices both send the same. A few kilobytes a token: it cannot be the *bytes* that make meeting expensive.
#
# ## 4. What a meeting costs
#
# So measure it: sums of several sizes, between two virtual devices of this process, and between two processes, which are as near to two machines as one machine gets.

# %%
SIZES = (256, 4096, 16384, 65536, 262144)
farther = Prediction(
    "09",
    "sum between processes over between virtual devices",
    "How many times longer does a sum of 4 KB take between two processes than between two virtual devices?",
    "times",
)
farther.ask()

# %% tags=["solution"]
farther.record(3)  # "the same memory, the same processor"

# %%
virtual = all_reduce_seconds(virtual_mesh(2), SIZES)
processes = attempt(time_all_reduce, 2, SIZES)
if isinstance(processes, dict):
    show(farther.compare(processes[4096] / virtual[4096]))
else:
    print(processes, "- going on with 0.2 ms and 1 GB/s instead of a measurement")
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
# Dashed is the line *latency + bytes / bandwidth*, and for what one token sends (4 KB a thousand numbers wide, 32 KB for a 70B model) it is nearly all latency. That makes the
# rule of thumb: **a token under tensor parallelism takes its share of the work, plus two latencies a layer.**
#
# The other way is to deal out **whole layers**: device 0 has the first half, device 1 the second. A token then meets only once per *boundary*, not twice per layer. But while one
# device works, the other waits, so a single user's tokens get no faster; a pipeline helps where there are several chunks to work on, as in a long prompt, or several users.
# llama.cpp calls it `--split-mode layer`, its default. Over the network (`ggml-rpc-server`, `--rpc`) it is its only way: the client sends the activations to a server, gets them back, and sends them on
# to the next. **RPC adds memory, never speed.** With the numbers just measured, for a model of 32 layers that takes 40 ms a token on one host:

# %%
toy = Cluster(
    Model("32 layers", 1e9, 1e9, 32, 4096), Host(bandwidth=25e9, flops=1e12, memory=1e9), link
)
rows = [
    (way, *(f"{1e3 * sim.seconds(toy, hosts, way):.1f} ms" for hosts in (1, 2, 4)), f"{toy.model.layers * 2 if way is Parallelism.TENSOR else hosts}")
    for way, hosts in ((Parallelism.TENSOR, 0), (Parallelism.LAYER, "n - 1"), (Parallelism.RPC, "2 n"))
]
print(text_table(("one token", "1 host", "2 hosts", "4 hosts", "meetings or messages"), rows))

# %% [markdown]
# ## 5. Real workers
#
# On real machines you would type, in three terminals (the first two on other hosts, with `--host 0.0.0.0 --token-file token`):
#
#     minillama worker --port 50052 -t 1
#     minillama worker --port 50053 -t 1
#     minillama run --workers 127.0.0.1:50052,127.0.0.1:50053 -m model.gguf -p "Once upon a time"
#
# llama.cpp's words for it are `ggml-rpc-server -p 50052 -t 1` and `llama-cli --rpc 127.0.0.1:50052,...`. Here the notebook starts the workers itself, with one thread each, leads them, and stops them at the end of the cell. They also
# end if you interrupt the cell, or if this kernel dies: each has a guard (`minillama/lab/distributed/process_guard.py`). The model has 275 MB of random weights in float32, so that a token is worth sharing.

# %%
second = Prediction(
    "09",
    "two processes over one",
    "Two worker processes of one thread each, on this machine: how many times faster than one such process?",
    "times",
)
second.ask()

# %% tags=["solution"]
second.record(1.6)

# %%
model = big_model("F32")
counts = (1, 2)  # with four cores or more, try (1, 2, 4)
tokens = {count: attempt(token_seconds, model, count) for count in counts}
lost = [taken for taken in tokens.values() if not isinstance(taken, float)]
if lost:
    tokens = {1: 0.020, 2: 0.014}
    print(f"{lost[0]}\nNothing is recorded. Run the cell again, or go on with the numbers of another machine:")
print(*(f"{count} processes: {1e3 * taken:.1f} ms a token" for count, taken in tokens.items()), sep="\n")

# %%
opened = ml.load(model, ctx_size=512, progress=False)
collectives = 2 * opened.config.block_count + 1
meeting = link.seconds(4 * opened.config.embedding_length)
law = sim.fit_scaling(tokens, collectives, round=meeting)
faster = {count: tokens[1] / taken for count, taken in tokens.items()}
print(f"a meeting: {1e6 * meeting:.0f} µs when nothing else is done (part 4), {1e6 * law.round:.0f} µs by the law")
if not lost:
    show(second.compare(faster[2], model=tokens[1] / (tokens[1] / 2 + collectives * meeting)))
# %%
show(scaling(faster, law, "Strong scaling: one model, more processes"))

# %% [markdown]
# *Model says*: half of one process's time, and thirteen meetings as you measured them. The law that is fitted to the points has three parts: what is done **alone** (the leader's work, sampling, starting programs: no second process takes
# it away), what is **shared**, and the **meetings**. Alone bounds the gain, as in lab 08. But the meetings are worse: they *grow* with the number of processes, so that there is a best number,
# and behind it every process makes things slower.
#
# And a meeting lasts until the *last* one comes. If a busy machine keeps one process from computing, both wait, thirteen times a token. Where the law's meetings are much longer
# than those of part 4, that is what you see; two processes may then well be slower than one. (This lab's solutions were run on two cores. While other programs wanted them too, two processes
# made 0.4 to 0.9 of the tokens of one; an idle minute later, more than one.) One host that is slow makes all slow: that holds for clusters as well, and no faster network helps.
#
# ### Exercise 5: breaking even
# One host takes `seconds` for a token, and `hosts` hosts share that work evenly. A token has `collectives` meetings. How long may **one** meeting take, at the most, before all these hosts together are slower than the one? The check asks about
# your own machine's numbers as well.


# %% tags=["exercise"]
def break_even(seconds: float, collectives: int, hosts: int) -> float:
    """Seconds of a meeting at which many hosts are just as fast as one."""
    raise NotImplementedError


# %% tags=["solution"]
def break_even(seconds: float, collectives: int, hosts: int) -> float:
    """Seconds of a meeting at which many hosts are just as fast as one."""
    return seconds * (1 - 1 / hosts) / collectives


# %% [markdown] tags=["hint"]
# seconds / hosts + collectives × meeting = seconds. Solve for the meeting.

# %% tags=["check"]
check.own.on(tokens[1], collectives, 2)
check.break_even(break_even)

# %%
may = attempt(break_even, tokens[1], collectives, 2)
if isinstance(may, float):
    measurement("09", "meeting over break-even, two processes", meeting / may, "share")
    print(f"two processes pay while a meeting takes less than {1e6 * may:.0f} µs; here it takes {1e6 * meeting:.0f} µs")
    home = attempt(break_even, 0.698, 160, 2)
    print(f"for the 70B model below, two hosts pay while a meeting takes less than {1e3 * home:.1f} ms")
else:
    print(may)

# %% [markdown]
# ## 6. 2 to 256 hosts
#
# Nobody here has 256 hosts, but a token's time is a sum of few terms, all of which you have measured: work / n, and two meetings a layer. `minillama/lab/distributed/cluster_simulator.py` adds them up, for three ways of spreading a model and four of
# adding up an array; every formula stands in its docstring. First it has to earn trust: what does it say about the points measured here?

# %%
mine = Model("random weights", weight_bytes(opened.file, opened.config), 69e6, opened.config.block_count, opened.config.embedding_length)
this = Host(bandwidth=mine.weight_bytes / tokens[1], flops=1e12, memory=1e9)  # from one process alone
measured_here = Cluster(mine, this, link)  # the link is part 4's; nothing is fitted to two processes
rows = [
    (f"{row.hosts}", f"{1e3 * row.measured:.1f} ms", f"{1e3 * row.simulated:.1f} ms", f"{row.error_factor:.2f}")
    for row in sim.compare_with_measured(measured_here, Parallelism.TENSOR, tokens)
]
print(text_table(("processes", "measured", "simulation", "off by a factor of"), rows))

# %% [markdown]
# ### 70B on home machines
# Llama 3.1 70B in Q4_K_M has 42 GB. You have machines with 32 GB each, two channels of DDR5 (60 GB/s), and ask: what do a second and a third one give?

# %%
at_home = Prediction(
    "09",
    "70B on two home machines",
    "70B on two home machines with gigabit Ethernet (0.2 ms): how many times faster than one, had one the memory?",
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
print(f"to hold the weights: {sim.fewest_hosts(homes['1 GbE'])} hosts; one alone would do {1 / sim.seconds(homes['1 GbE'], 1, Parallelism.TENSOR):.1f} tokens/s")
print(text_table(("link", "latency", "2nd host, tensor", "2nd host, RPC", "hosts worth it", "tokens/s then"), rows))

# %%
said = {} if at_home.recorded() is None else {"you said": at_home.recorded()}
answers = said | {"the simulation says": sim.second_host_speed_up(homes["1 GbE"], Parallelism.TENSOR)}
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
# ("Worth it" is a host that makes a token at least a tenth faster.) Gigabit Ethernet is better than its name: 32 KB a meeting are 0.3 ms, and reading half of the weights takes 350. Wi-Fi is hopeless, through its latency, not its
# bandwidth. And 256 hosts are slower than 4. Note what the curves leave out: this model has 8 key/value heads, so with more than 8 hosts keys and values are held twice; switches and
# other people's traffic; and hosts that differ, where all wait for the slowest.
#
# Play with it: **latency** moves the top, **bandwidth** hardly matters for a token and everything for a prompt.

# %%
MODELS = {"Llama 70B Q4_K_M": LLAMA_70B, "Llama 8B Q4_K_M": Model("8B", 4.6e9, 7.5e9, 32, 4096), "what ran here": mine}
TESTS = {"one token": 1, "a prompt of 2048": 2048}


def simulate(settings):
    """The curves, without widgets: settings in, picture out."""
    link = sim.Link(settings["latency"] / 1e3, settings["gigabits"] * 1e9 / 8)
    host = Host(settings["memory"] * 1e9, HOME.flops, HOME.memory)
    chosen = Cluster(MODELS[settings["model"]], host, link)
    tokens = TESTS[settings["test"]]
    title = f"{settings['model']}, {settings['test']}: {settings['latency']:g} ms, {settings['gigabits']:g} Gbit/s"
    curves = {way: sim.speeds(chosen, COUNTS, way, tokens) for way in Parallelism}
    return host_curves(curves, title, needed=sim.fewest_hosts(chosen))


panel = Panel(
    [
        Dropdown("model", "model", tuple(MODELS), "Llama 70B Q4_K_M", "what is spread"),
        Dropdown("test", "what is timed", tuple(TESTS), "one token", "a token waits for latency, a prompt for bandwidth"),
        Slider("latency", "latency, ms", 0.01, 3.0, 0.01, 0.2, "of one message from host to host"),
        Slider("gigabits", "link, Gbit/s", 0.1, 25.0, 0.1, 1.0, "of each host, each way"),
        Slider("memory", "memory, GB/s", 20.0, 400.0, 10.0, 60.0, "that each host reads its weights at"),
    ],
    simulate,
).show()

# %% [markdown]
# The same without widgets: at which latency does the best number of hosts fall to one? (Gigabit, as above.)

# %% tags=["check-output"]
for latency in (0.02, 0.2, 0.5, 1.0, 2.0, 3.0):
    chosen = Cluster(LLAMA_70B, HOME, sim.Link(latency / 1e3, 0.125e9))
    best = sim.fastest_hosts(chosen, Parallelism.TENSOR)
    how = sim.fastest_algorithm(chosen.link, 4 * LLAMA_70B.width, best) if best > 1 else "nothing: the second host slows it down"
    print(f"{latency:4} ms: {best:2} hosts, {1 / sim.seconds(chosen, best, Parallelism.TENSOR):.2f} tokens/s, adding up by {how}")

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Cut the first of two products by rows and the second by columns: one meeting for the pair, two for a layer.
# * XLA makes any PartitionSpec right. Whether it is cheap is written in the compiled program: count the collectives.
# * A token sends little and meets often: **latency** decides. A prompt sends much: **bandwidth** decides.
# * Tensor parallelism divides work and memory, and pays 2 × layers meetings a token. Layer parallelism divides memory, and a single user's token gains nothing. RPC adds memory, never speed.
# * seconds(n) = alone + shared / n + meetings(n): there is a best n, and it is small.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | lend a machine | `ggml-rpc-server -H 0.0.0.0 -p 50052 -t N` | `minillama worker --host 0.0.0.0 --port 50052 -t N --token-file token` |
# | use them | `--rpc host:port,...` | `--workers host:port,...` (or `--rpc`) |
# | split every layer | `--split-mode tensor` (local GPUs) | tensor parallel over devices and hosts; `ml.load(tensor_parallel=N)` |
# | deal out layers | `--split-mode layer`, also over RPC | `--split-mode layer` |
# | uneven shares | `--tensor-split 3,1` | the same, for layers |
# | who may come in | anybody: no authentication | a shared secret, compared in constant time; not encrypted |
# | a peer dies | the client aborts | one line, the text so far is kept |
#
# ## When you get an error
#
# * `JAX started with 1 devices`, or `cpu_devices=8 comes too late`: restart the kernel and run the first cell first.
# * `unbound axis name`: the axis is called `"tensor"`, and exists only inside of `shard_map`.
# * `the worker on port ... ended at once`: the words behind it are the worker's own.
# * Part 5 takes much longer than a minute, or two processes are slower than one: something else runs (`top`). Two processes that wait for each other feel it twice.
# * `query heads ... do not divide among`: heads are not cut. The message says which numbers of devices are possible.
