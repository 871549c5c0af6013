# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 13 · Many readers
#
# A server has many readers at once. Decoding for one reader waits for memory: the weights come from memory for a single
# token. If eight readers wait, the same weights could serve all of them. This is *batching*, and it is the reason why a
# server is cheaper per token than a laptop. But readers come and go, their prompts are long and short, and each of them
# looks at the gap between two words. This lab takes a scheduler apart: what it gains, what it costs, and where it bends.
#
# | | |
# |---|---|
# | **Afterwards you can** | predict the tokens a second of a batch, choose slots and chunk sizes for a reason, read TTFT and gaps from events, and find the rate from which on a queue grows |
# | **Time** | 75 minutes |
# | **You should know** | lab 01 (roofline), lab 05 (prefill, decode), lab 06 (percentiles) |
# | **Runs on** | any laptop, about a minute of computing, no network |
# | **In llama.cpp** | `llama-server -np 8 -cb`, `-ub`, `llama-batched-bench -npl 1,2,4,8,16`; in vLLM: `vllm serve`, `vllm bench serve` |

# %%
import numpy as np

from minillama.lab import IntSlider, Panel, Prediction, Slider, collect, running, show
from minillama.lab.checks import lab13 as check
from minillama.lab.experiments.counted_passes import big_model
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, scaled
from minillama.lab.plots.roofline_plots import (
    Dot,
    measure_own_roofline,
    record_dot,
    recorded_roofline,
)
from minillama.lab.plots.serving_plots import gantt, rows_curves, two_sided
from minillama.lab.serving.batch_simulator import (
    Costs,
    Policy,
    admit_any,
    admit_batch,
    common_prefix,
    mixed_requests,
    simulate,
    whole_prompt,
)
from minillama.lab.serving.open_loop import run_open_loop
from minillama.measure.limits.work_per_token import head_weights, prompt_weights, weight_bytes
from minillama.measure.serving.batched_bench import step_seconds
from minillama.measure.tables import plain_table

MODEL = None  # or the path of your own GGUF file
storyteller = lab_model(MODEL)  # None: the storyteller
# None: 73 MB of random weights, more than a processor's cache
big = lab_model(MODEL, big_model, ctx_size=512)
SIZE = f"{big.path.stat().st_size / 1e6:.0f} MB"

# %% [markdown]
# ## 1. One pass for many texts: predict, then measure
#
# A step of *B* texts reads the weights once and multiplies each of them *B* times. The roofline (lab 01) bounds it:
#
# $$\text{seconds}(B) \ge \max\left(\frac{\text{weight bytes}}{\text{bandwidth}}, \frac{2\,\text{weights}\cdot B}{\text{operations a second}}\right)$$
#
# As long as the first term is the larger one, another text is free: tokens a second grow like *B*. From the second on, each
# text takes its own time, and the total stays the same. The bend is where both are equal.

# %%
with running("memory and arithmetic, unless lab 01 has measured them", seconds=3):
    roof = recorded_roofline() or measure_own_roofline()
weights, size = (
    prompt_weights(big.file, big.config) + head_weights(big.config),
    weight_bytes(big.file, big.config),
)
ROWS = (1, 2, 4, 8, 16)
bend = size / roof.bandwidth * roof.flops / (2 * weights)
places = (*ROWS, min(max(bend, 1), 16))
bound = {
    rows: rows / max(size / roof.bandwidth, 2 * weights * rows / roof.flops) for rows in places
}
print(
    f"{size / 1e6:.0f} MB of weights; {roof.bandwidth / 1e9:.1f} GB/s and "
    f"{roof.flops / 1e9:.0f} billion operations a second"
)
print(f"the roofline bends at {bend:.1f} texts")

# %%
eight = Prediction(
    "13",
    "8 texts over 1",
    "Eight texts in one step: how many times more tokens a second than one text?",
    "times",
)
eight.ask()

# %% tags=["solution"]
eight.record(8)  # "the weights are read anyway"

# %%
with watched_load(), running("steps of 1 to 16 texts", seconds=60 if MODEL else 10):
    seconds = step_seconds(big, ROWS)
speeds = {rows: rows / taken for rows, taken in seconds.items()}
for rows, speed in speeds.items():  # for the figure of lab 01
    record_dot("13", f"{SIZE}, {rows} texts", Dot(2 * weights * rows / size, 2 * weights * speed))
show(eight.compare(speeds[8] / speeds[1], model=bound[8] / bound[1]))
# %%
said = None if eight.recorded() is None else eight.recorded() * speeds[1]
show(
    rows_curves(
        speeds,
        bound,
        {8: said} if said else {},
        f"Tokens a second by texts in a step, {SIZE} model",
    )
)

# %% [markdown]
# The measured curve lies below the roofline, and it has no sharp bend. You can look up three reasons in this
# project:
#
# * The products of few texts are not the products of many. One text runs through a kernel that waits for memory
#   (`minillama/kernels/cpu/matmul/gemv.py`), the many tokens of a prompt through one that fills the arithmetic units
#   (`gemm.py`). The roofline has its operations a second from the second one. Two to 32 texts have kernels in between
#   (`minillama/kernels/cpu/skinny_gemm/`).
# * Attention is not shared: each text has a cache of its own, and reads it for itself.
# * Sampling, dispatch and small operations take the same time for each text or each step. On the storyteller (2 MB, all in
#   the processor's cache) they are nearly everything, so batching gains less there.
#
# The ratio of eight texts over one can still be larger than the roofline's: one text alone may be farther from its bound
# than eight are. Compare the shares `speeds[1] / bound[1]` and `speeds[8] / bound[8]`.
#
# On a GPU the bend is at hundreds of texts: it has far more arithmetic for each byte. This is why GPU servers are
# profitable with many readers only.
#
# ## 2. Static and continuous batching
#
# Who shares a step? The oldest way is *static batching*: wait for a batch, run it to its end, take the next one. Answers
# have unlike lengths, so a row whose text has ended goes on computing nothing, until the longest text of the batch ends.
# *Continuous batching* (Orca, 2022) decides anew at every step: a slot that is free takes the next request at once.
#
# Here are the same 20 requests, on 4 slots of a simulated server. The simulator
# (`minillama/lab/serving/batch_simulator.py`) has a virtual clock and no model; its costs are three numbers.

# %%
costs = Costs(step=0.020, row=0.001, token=0.001)
requests = mixed_requests(20)
static = simulate(requests, 4, costs, Policy(admit_batch, whole_prompt, together=True))
continuous = simulate(requests, 4, costs, Policy(admit_any, whole_prompt))
show(gantt(static, "Static batching: 20 requests on 4 slots"))
# %%
show(gantt(continuous, "Continuous batching: the same requests", seconds=static.seconds))

# %% tags=["check-output"]
rows = [
    (
        name,
        f"{run.seconds:.2f}",
        f"{run.tokens_per_second:.0f}",
        f"{run.utilisation:.0%}",
        f"{np.mean(run.first_tokens):.2f}",
    )
    for name, run in (("static", static), ("continuous", continuous))
]
print(
    plain_table(
        ("batching", "seconds", "tokens/s", "slots in use", "mean TTFT s"), rows, right=(1, 2, 3, 4)
    )
)

# %% [markdown]
# The grey rows are the gain. But look at the blue bars: while a prompt is read, *all* texts wait. (The thin green lines
# are single steps between two prompts.) Section 3 repairs it.
#
# ### Exercise 1: which requests begin, and where
# Between two steps the scheduler looks at the queue. `waiting` holds requests in the order of their arrival; each has a
# `number` and its `prompt` (a tuple of tokens). `slots` holds slots with `number`, `is_free`, `tokens` (what their cache
# holds, from the last text) and `last_used` (a time). Return pairs `(request number, slot number)`:
#
# * first come, first served, until no slot is free;
# * a request takes the free slot that holds the longest beginning of its prompt, if that is **more than a tenth** of the
#   prompt: these tokens need not be read again;
# * otherwise it takes the free slot that was used least recently.
#
# `common_prefix(a, b)` counts equal tokens at the beginning. This is llama-server's rule (`--slot-prompt-similarity 0.1`).


# %% tags=["exercise"]
def admit(waiting, slots):
    """Pairs (request number, slot number) of the requests that begin now."""
    raise NotImplementedError


# %% tags=["solution"]
def admit(waiting, slots):
    """Pairs (request number, slot number) of the requests that begin now."""
    free = [slot for slot in slots if slot.is_free]
    pairs = []
    for request in waiting:
        if not free:
            break
        slot = max(free, key=lambda slot: common_prefix(slot.tokens, request.prompt))
        if common_prefix(slot.tokens, request.prompt) <= 0.1 * len(request.prompt):
            slot = min(free, key=lambda slot: slot.last_used)
        free.remove(slot)
        pairs.append((request.number, slot.number))
    return pairs


# %% [markdown] tags=["hint"]
# Make a list of the free slots, and remove a slot from it when a request takes it. `max(free, key=...)` finds the slot with
# the longest common beginning, `min(free, key=lambda slot: slot.last_used)` the one that is unused for longest.

# %% tags=["check"]
check.admit(admit)

# %% [markdown]
# ## 3. A prompt between two tokens
#
# A prompt of 300 tokens takes 0.3 s here, and all readers stare at a half-written sentence. *Chunked prefill* (Sarathi,
# 2023) reads a prompt in parts, with a step of all texts between two parts. The gap is then a step and a chunk:
#
# $$\text{gap} = \text{seconds of a step} + \text{tokens of the chunk} \cdot \text{seconds of a token}$$
#
# ### Exercise 2: how much of a prompt to read
# `left` tokens of the oldest prompt are not read yet, and `rows` texts are being generated. Return the size of the next
# chunk: the largest whose gap is at most `limit` seconds. `costs.step_seconds(rows)` are the seconds of a step,
# `costs.token` those of one token of a prompt, and a pass takes `costs.ubatch` tokens at most. Without texts there are no
# gaps. With any limit the prompt must go on.


# %% tags=["exercise"]
def next_chunk(left, rows, limit, costs):
    """Tokens of the next chunk, so that a gap is at most `limit` seconds."""
    raise NotImplementedError


# %% tags=["solution"]
def next_chunk(left, rows, limit, costs):
    """Tokens of the next chunk, so that a gap is at most `limit` seconds."""
    most = min(left, costs.ubatch)
    if rows == 0:
        return most
    fitting = int((limit - costs.step_seconds(rows)) / costs.token)
    return max(1, min(fitting, most))


# %% [markdown] tags=["hint"]
# Solve the formula of the gap for the tokens of the chunk, and round down. Then bound it: not more than `left`, not more
# than `costs.ubatch`, and at least 1.

# %% tags=["check"]
check.next_chunk(next_chunk)

# %% [markdown]
# Small chunks are not free: while a prompt is read in small parts, its own reader waits for the steps between them. Move
# the arrivals, and the costs of a step and of a token. Both axes are logarithmic.

# %%
SIZES = (8, 16, 32, 64, 128, 256, 512)


def chunked(size):
    """A decision that reads `size` tokens while texts are generated."""
    return lambda left, rows, limit, costs: min(left, size if rows else costs.ubatch)


def gaps_by_chunk(settings):
    """The curves without widgets: settings in, figure out."""
    costs = Costs(step=settings["step"] / 1e3, token=settings["token"] / 1e3)
    runs = [
        simulate(
            mixed_requests(40, rate=settings["rate"]), 8, costs, Policy(admit_any, chunked(size))
        )
        for size in SIZES
    ]
    curves = {
        "p95 gap": [1e3 * np.percentile(run.gaps, 95) for run in runs],
        "p95 TTFT": [1e3 * np.percentile(run.first_tokens, 95) for run in runs],
    }
    title = f"Gap and first token by chunk size, {settings['rate']} requests a second"
    return two_sided(SIZES, curves, title, "tokens of a chunk", "milliseconds", logarithmic="xy")


# %% tags=["panel"]
panel = Panel(
    [
        IntSlider("rate", "requests a second", 1, 8, 2, "Poisson arrivals"),
        Slider("step", "a step, ms", 5.0, 60.0, 5.0, 20.0, "the weights from memory"),
        Slider("token", "a prompt's token, ms", 0.2, 4.0, 0.2, 1.0, "arithmetic"),
    ],
    gaps_by_chunk,
).show()

# %% [markdown]
# The same without widgets. Find the largest chunk whose p95 gap is at most 100 ms, and its price in time to first token.

# %% tags=["check-output"]
for size in SIZES:
    run = simulate(mixed_requests(40, rate=2), 8, costs, Policy(admit_any, chunked(size)))
    print(
        f"chunk {size:3}: p95 gap {1e3 * np.percentile(run.gaps, 95):4.0f} ms, p95 TTFT "
        f"{1e3 * np.percentile(run.first_tokens, 95):5.0f} ms"
    )

# %% [markdown]
# llama-server's chunk is `-ub` (512) in any case. minillama's scheduler measures a step and a token while it runs, and
# chooses chunks that take about two steps; only short prompts are read whole
# (`minillama/engine/batching/policy/chunk_rule.py`).
#
# ## 4. From tokens to what a reader sees
#
# A token is not yet text. It may be half of an emoji, or the first part of a *stop string* (`\nUser:`) that must never be
# shown. The server holds text back, but no longer than it must: held text is a gap, too.
#
# ### Exercise 3: a stop string over several tokens
# `pieces` are the texts of the tokens. Return a list with the text to send after each piece, possibly `""`. When the stop
# string is complete, the last element is the text before it, and nothing follows. If the pieces end without it, one more
# element is the text that was still held back.


# %% tags=["exercise"]
def stop_string(pieces, stop):
    """Texts to send, one for each piece; never a part of `stop`, and none later than necessary."""
    raise NotImplementedError


# %% tags=["solution"]
def stop_string(pieces, stop):
    """Texts to send, one for each piece; never a part of `stop`, and none later than necessary."""
    held, sent = "", []
    for piece in pieces:
        held += piece
        if stop in held:
            return [*sent, held[: held.index(stop)]]
        size = next((k for k in range(len(stop) - 1, 0, -1) if held.endswith(stop[:k])), 0)
        sent.append(held[: len(held) - size])
        held = held[len(held) - size :]
    return [*sent, held]


# %% [markdown] tags=["hint"]
# Keep a text `held`. After each piece: is `stop` in it? If not, which is the longest end of `held` that is a beginning of
# `stop` (`held.endswith(stop[:k])`, from the largest k down)? Send everything before that end.

# %% tags=["check"]
check.stop_string(stop_string)

# %% [markdown]
# ### Exercise 4: TTFT and gaps from raw events
# A client writes down what happens: `(seconds, request, kind, text)`, with the kinds `sent`, `text` and `end`, the events
# of all requests mixed. Return `(time to first token, longest gap)` for each request, in the order of their numbers. An
# event without text (the role, half of a character) is no token. A request with a single token has a gap of 0.


# %% tags=["exercise"]
def latencies(events):
    """[(time to first token, longest gap between two texts), ...] in seconds, by request."""
    raise NotImplementedError


# %% tags=["solution"]
def latencies(events):
    """[(time to first token, longest gap between two texts), ...] in seconds, by request."""
    sent, texts = {}, {}
    for seconds, request, kind, text in events:
        if kind == "sent":
            sent[request] = seconds
        elif kind == "text" and text:
            texts.setdefault(request, []).append(seconds)
    return [
        (times[0] - sent[request], max(np.diff(times), default=0.0))
        for request, times in sorted(texts.items())
    ]


# %% [markdown] tags=["hint"]
# Two dictionaries: request to the time at which it was sent, and request to the times of its texts. `np.diff(times)` are
# the gaps; `max(..., default=0.0)` of no gaps is 0.

# %% tags=["check"]
check.latencies(latencies)

# %% tags=["check-output"]
found = attempt(latencies, check.raw_events(13, 5))
if isinstance(found, list):
    print(
        plain_table(
            ("request", "TTFT ms", "longest gap ms"),
            [
                (str(number), f"{1e3 * first:.0f}", f"{1e3 * gap:.0f}")
                for number, (first, gap) in enumerate(found)
            ],
            right=(0, 1, 2),
        )
    )
else:
    print(found)

# %% [markdown]
# ## 5. Open loop: the rate from which on a queue grows
#
# Eight clients that wait for their answers (a *closed loop*) never send more than the server can do. Real readers do not
# wait for each other: they arrive. In an *open loop* requests come at a rate, at random times, whatever the server does.
#
# First the capacity of this machine: 48 requests at once (fewer with a large model of yours), on the real engine with 8 slots (`LLM.batch_engine`).

# %%
PROMPTS = [
    f"Once upon a time, there was a {word}"
    for word in ("fox", "bear", "girl", "boy", "bird", "cat", "dog", "fish")
]
engine = storyteller.batch_engine(slots=8, ctx_size=512)
FULL = scaled(48, storyteller, tokens=24, rows=2, seconds=20, least=16)  # 48 of a small model
with watched_load(), running("all requests at once, twice", seconds=30 if MODEL else 6):
    run_open_loop(engine, PROMPTS, rate=1000.0, count=FULL // 2)  # the first time compiles
    capacity = run_open_loop(engine, PROMPTS, rate=1000.0, count=FULL).throughput
print(f"{capacity:.0f} requests a second, {24 * capacity:.0f} tokens a second")

# %%
overload = Prediction(
    "13",
    "TTFT at 1.5 over 0.5 of the capacity",
    "Requests arrive at 1.5 times the capacity instead of 0.5 times: how many times longer is "
    "the median time to first token?",
    "times",
)
overload.ask()

# %% tags=["solution"]
overload.record(3)  # "three times the rate"

# %%
SHARES = (0.3, 0.5, 0.7, 0.9, 1.1, 1.5)
COUNT = scaled(60, storyteller, tokens=10 * 24, rows=2, least=10)  # 60 of a small model
with watched_load():
    work = (run_open_loop(engine, PROMPTS, rate=share * capacity, count=COUNT) for share in SHARES)
    runs = dict(zip(SHARES, collect(work, "rates", len(SHARES)), strict=True))
first = {share: float(np.median(run.first_tokens)) for share, run in runs.items()}
show(overload.compare(first[1.5] / first[0.5]))
# %%
curves = {
    "median TTFT": [1e3 * first[share] for share in SHARES],
    "p95 TTFT": [1e3 * np.percentile(run.first_tokens, 95) for run in runs.values()],
}
show(
    two_sided(
        SHARES,
        curves,
        "Open loop: time to first token",
        "arrivals, as a share of the capacity",
        "milliseconds",
        marked=1.0,
    )
)

# %% [markdown]
# The curve is called a hockey stick. Left of the capacity a request finds a free slot. Right of it the queue grows as long
# as requests arrive: with 60 requests the wait is finite, with 600 it would be ten times longer. A single number of
# "milliseconds at 1.5 times the capacity" therefore means nothing without the length of the test.
#
# **Little's law** holds for all of them: the mean number of requests in the system is the throughput times the mean time
# in it, $N = X R$. Here N is counted every few milliseconds, X and R come from the ends of the requests.

# %%
rows = [
    (
        f"{share:g}",
        f"{run.throughput:.1f}",
        f"{1e3 * run.mean_total:.0f}",
        f"{run.throughput * run.mean_total:.2f}",
        f"{run.in_flight:.2f}",
    )
    for share, run in runs.items()
]
print(plain_table(("share", "X requests/s", "R ms", "X R", "N counted"), rows, right=range(5)))
busy = runs[0.9]
ratio = measurement(
    "13",
    "N over X R at 0.9 of the capacity",
    busy.in_flight / (busy.throughput * busy.mean_total),
    "ratio",
)

# %% [markdown]
# So a server's log of two numbers gives the third: 40 requests a second that take 0.5 s each are 20 requests in the system,
# and 8 slots are too few for them.
#
# ## 6. The same answer in any company
#
# Do your neighbours change your answer? In most servers they do, slightly: sums of another order, kernels of other sizes,
# and a token whose probability is close to that of another one changes the rest of the text. Try it here: eight seeded
# requests alone, then all at once.

# %% tags=["check-output"]
alone = [
    engine.submit(prompt, n=40, seed=number, temp=0.8).finish().text
    for number, prompt in enumerate(PROMPTS)
]
before = engine.schedule()[-1].number
crowd = [
    engine.submit(prompt, n=40, seed=number, temp=0.8) for number, prompt in enumerate(PROMPTS)
]
together = [stream.finish().text for stream in crowd]
print(
    f"{sum(a == b for a, b in zip(alone, together, strict=True))} of {len(PROMPTS)} texts are "
    "the same"
)

# %%
print(together[0])
shared = [len(turn.rows) for turn in engine.schedule() if turn.rows and turn.number > before]
print(
    f"\n{len(shared)} steps for all, with {np.mean(shared):.1f} texts on average, "
    f"{max(shared)} at most"
)
engine.close()

# %% [markdown]
# The kernels for one to 32 texts add the products in the same order, and the seed belongs to the request, not to the
# server. So a bug report with a seed can be reproduced, whoever else was there.
#
# ## 7. Next to another server
#
# All of this works over HTTP. In two terminals:
#
#     minillama serve -m model.gguf -np 8 --port 8080
#     llama-server -m model.gguf -np 8 --port 8081
#
# and in a third one the same requests to both in turn, in a closed and in an open loop:
#
#     minillama bench-serve http://127.0.0.1:8080 http://127.0.0.1:8081 --label ours,theirs --clients 1,8,32 --rounds 3
#     minillama bench-serve http://127.0.0.1:8080 --rate 1,2,4,8 --goodput ttft:500,itl:200

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * A step of B texts reads the weights once. Tokens a second grow with B until arithmetic is the limit: the roofline says
#   where, and kernels, attention and dispatch make the bend soft.
# * Continuous batching decides at every step. Static batching wastes the rows whose text has ended.
# * The gap between two tokens is a step and a chunk. Small chunks give even gaps and a later first token.
# * A closed loop cannot overload a server. An open loop shows the rate from which on the queue grows. N = X R.
# * An answer need not depend on its company. Check it: seeds alone and in a crowd.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | slots | `llama-server -np 8` | `minillama serve -np 8`; `llm.batch_engine(slots=8)` |
# | chunk of a prompt | `-ub 512` | at most `-ub`; while texts are generated, about two steps |
# | tokens a second by texts | `llama-batched-bench -npl 1,2,4,8` | `minillama batched-bench -npl 1,2,4,8` |
# | load on a server | | `minillama bench-serve URL --clients 8`, `--rate 4` |
# | what the scheduler did | `GET /slots`, `/metrics` | the same, and `GET /schedule`; `engine.schedule()` |
#
# ## When you get an error
#
# * `the prompt has N tokens and a slot has M`: a slot holds prompt and answer. Raise `ctx_size`, or lower `slots`.
# * `other processes used ... of the CPU cores`: another program computes, and numbers of two cells do not belong
#   together. Run the cells of the section again when it has ended; the shares of the capacity matter, not the numbers.
# * The first run takes longer than the others: it compiles a program for each number of texts.
# * The p95 gap in section 3 does not fall below a value: it is the step itself. No chunk is smaller than nothing.
