# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 05 · Prefill, decode and the KV cache
#
# A language model answers in two phases that share only the weights. First it processes the whole prompt at once
# (*prefill*), then it generates one token at a time (*decode*). Prefill is bound by arithmetic, decode by memory
# traffic, and the cache of keys and values makes decode affordable. If you know the phase of a number, you can explain
# almost every number of this course.
#
# | | |
# |---|---|
# | **Afterwards you can** | explain why decode is bound by memory and prefill is not, what a time-to-first-token consists of, and what a cache costs and saves |
# | **Time** | 60 minutes |
# | **You should know** | lab 00 (timing), lab 03 (attention); what a logarithm does to a power |
# | **Runs on** | any laptop, a minute of computing at most, no network |
# | **In llama.cpp** | `llama-bench -p 512 -n 128 -d 0,1024`, `-ctk`, `-ctv`, `-c`, `-ub`; the lines *prompt eval time* and *eval time* |

# %%
import logging

import jax
import jax.numpy as jnp
import numpy as np

from minillama.gguf.kv_cache_types import read_cache_types
from minillama.lab import Dropdown, IntSlider, Panel, Prediction, collect, running, show
from minillama.lab.checks import lab05 as check
from minillama.lab.experiments.counted_passes import (
    CountedModel,
    big_model,
    decode_speeds,
    one_more_token,
    pass_seconds,
)
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, model_name, scaled
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.measurement_plots import power_laws, sweep, timeline
from minillama.lab.plots.roofline_plots import Dot, record_dot
from minillama.measure.limits.work_per_token import cache_bytes_read, prompt_weights, weight_bytes

# The storyteller was trained on 512 tokens and warns about more. This lab only measures times.
logging.getLogger("minillama").setLevel(logging.ERROR)
MODEL = None  # or the path of your own GGUF file
llm = lab_model(MODEL, ctx_size=2048)
PROMPT = (
    "Once upon a time, there was a little fox who lived in a deep forest. Every day she walked "
    "to the river. "
    * 10
)
llm

# %% [markdown]
# ## 1. The two phases on a clock
#
# Here is a prompt of about 250 tokens, followed by a story of 48. For every token we record the time since the previous
# one.

# %%
ids = llm.tokenizer.encode(PROMPT)
first_token = Prediction(
    "05",
    "first token over later token",
    f"The prompt has {len(ids)} tokens. How many times longer than a later token does the "
    "first one take?",
    "times",
)
first_token.ask()

# %% tags=["solution"]
first_token.record(10)  # "the prompt is read in one go, so it cannot be much"

# %%
with watched_load(), running("a text, twice", steps=2) as advance:
    for _ in range(2):  # the first run compiles, and is not timed
        pieces = list(llm.stream(ids, n=48, temp=0.0, ignore_eos=True))
        advance()
seconds = [piece.seconds for piece in pieces]
show(first_token.compare(seconds[0] / np.median(seconds[1:]), model=len(ids)))
# %%
show(
    timeline(
        [piece.text for piece in pieces],
        [1e3 * value for value in seconds],
        "A text on the clock, token by token",
    )
)

# %% [markdown]
# *Model says* is the simplest possible model: before the first token, every token of the prompt must pass through the
# network, so the factor is the number of prompt tokens. The measured factor is much smaller: a prompt's tokens pass
# through *together*, which is cheaper for each of them. Section 5 explains why.
#
# These times have names. **TTFT**, time to first token: the orange bar. **TPOT**, time per output token: a blue bar. An
# answer of *n* tokens takes TTFT + (n − 1) · TPOT. What does the orange bar consist of?

# %%
session = llm.session()
question = ids + llm.tokenizer.encode(" What then?", add_special=False)
with running("prompts", steps=2) as advance:
    for _ in range(2):  # the first run compiles
        timings = llm.generate(ids, n=8, temp=0.0).timings
        short = llm.generate(ids[:16], n=8, temp=0.0).timings
        session.clear()
        llm.generate(ids, n=1, temp=0.0, session=session)
        again = llm.generate(question, n=8, temp=0.0, session=session).timings
        advance()
parts = {
    f"prompt of {len(ids)} tokens": timings.prompt,
    "sampling of the first token": timings.first_token - timings.prompt,
    "prompt of 16 tokens": short.prompt,
    f"prompt of {len(question)} tokens, all but {again.prompt_tokens} in the cache": again.prompt,
}
show(
    bars(
        list(parts),
        [1e3 * value for value in parts.values()],
        "Parts of the time to the first token",
        "milliseconds",
    )
)

# %% [markdown]
# * The prompt is nearly all of it, so TTFT grows with the prompt. (The *very* first token also waits for loading and
#   compiling: `timings.load`, `timings.compile`. minillama reports these separately; a stopwatch includes them.)
# * Tokens in the cache are not processed again. Therefore a chat answers quickly although its history grows: only the
#   new question is processed. llama.cpp's server does the same and calls it `cache_prompt`.
#
# ## 2. Greedy decoding, with and without a cache
#
# What can a cache hold? Attention of the newest token needs the keys and values of *all* tokens before it, and these do
# not change when another token comes (lab 03: no token attends to the future). Without a cache, each new token requires
# a pass over the whole text:


# %%
def naive(model, prompt, n):
    """n greedy tokens; each runs the whole text again, without a cache."""
    tokens = list(prompt)
    for _ in range(n):
        logits, _ = model(tokens, model.empty())
        tokens.append(int(np.argmax(logits)))
    return tokens[len(prompt) :]


# %% [markdown]
# ### Exercise 1: the same text with a cache
# `model(tokens, cache)` runs tokens that follow those in the cache. It returns the logits after the last token and *the
# new cache*. The input cache is consumed. `model.empty()` is an empty cache. Generate the same text with as little work
# as possible: the check counts the passes and the tokens.


# %% tags=["exercise"]
def generate(model, prompt, n):
    """n greedy tokens; the prompt is run once, then the newest token alone."""
    raise NotImplementedError


# %% tags=["solution"]
def generate(model, prompt, n):
    """n greedy tokens; the prompt is run once, then the newest token alone."""
    logits, cache = model(prompt, model.empty())
    tokens = [int(np.argmax(logits))]
    while len(tokens) < n:
        logits, cache = model([tokens[-1]], cache)
        tokens.append(int(np.argmax(logits)))
    return tokens


# %% [markdown] tags=["hint"]
# The first new token comes from the prompt's own logits: `logits, cache = model(prompt, model.empty())`, then
# `np.argmax(logits)`. Every other one comes from a pass over a list of *one* token, with the cache that the previous
# pass returned. n tokens need n passes, because the logits after the last token are not needed.

# %% tags=["check"]
check.generate(generate)

# %% [markdown]
# Both functions on the model. *Programs* are the different shapes; XLA compiles each of them:

# %% tags=["check-output"]
start = llm.tokenizer.encode("Once upon a time, there was")
for name, function in (("naive", naive), ("yours", generate)):
    model = CountedModel(llm)
    with running("each length of a pass compiles a program", seconds=8):
        written = attempt(function, model, start, 6)
    text = llm.tokenizer.decode(written) if isinstance(written, list) else written
    print(
        f"{name}: {model.calls} passes, {model.tokens:3} tokens run, {len(model.programs)} "
        f"programs: {text!r}"
    )

# %% [markdown]
# ## 3. The cost without a cache, as a slope
#
# The time of **one more token** after 64, 128, ... 1024 others: with the cache, and with everything processed again.

# %%
growth = Prediction(
    "05",
    "1024 over 64, without a cache",
    "Without a cache: how many times longer does one more token take after 1024 tokens than "
    "after 64?",
    "times",
)
growth.ask()

# %% tags=["solution"]
growth.record(16)  # sixteen times as many tokens

# %%
MANY = scaled(9, llm, tokens=2048, rows=8, seconds=25)  # 9 of a small model
CONTEXTS = (64, 128, 256, 512, 1024) if MANY > 2 else (64, 256, 1024)
WAYS = {"everything again": False, "with the cache": True}
measured = {name: {} for name in WAYS}
with watched_load(), running("contexts", steps=len(WAYS) * len(CONTEXTS)) as advance:
    for name, cached in WAYS.items():
        for context in CONTEXTS:
            taken = one_more_token(llm, context, cached=cached, repetitions=MANY)
            measured[name][context] = taken
            advance()
show(
    growth.compare(
        measured["everything again"][1024] / measured["everything again"][64], model=1024 / 64
    )
)

# %% [markdown]
# ### Exercise 2: the slope
# On two logarithmic axes a law $y = c\,x^k$ is a straight line with slope $k$: 0 is constant, 1 linear, 2 quadratic.
# Return the slope of the best line (least squares).


# %% tags=["exercise"]
def slope(x: np.ndarray, y: np.ndarray) -> float:
    """The exponent k of the power law y = c x^k that fits best."""
    raise NotImplementedError


# %% tags=["solution"]
def slope(x: np.ndarray, y: np.ndarray) -> float:
    """The exponent k of the power law y = c x^k that fits best."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


# %% [markdown] tags=["hint"]
# $\log y = \log c + k \log x$: a line in the logarithms. `np.polyfit(a, b, 1)` fits a line and returns `[slope,
# offset]`.

# %% tags=["check"]
check.slope(slope)

# %%
slopes = {}
for name, points in measured.items():
    k = attempt(slope, np.array(list(points)), np.array(list(points.values())))
    print(f"{name}: slope", f"{k:.2f}" if isinstance(k, float) else k)
    if isinstance(k, float):
        slopes[name] = measurement("05", f"slope, {name}", k, "exponent")
show(
    power_laws(
        {
            name: {at: 1e3 * value for at, value in points.items()}
            for name, points in measured.items()
        },
        "One more token",
        "tokens before it",
        "milliseconds",
        slopes=slopes,
    )
)

# %% [markdown]
# * **Everything again** has a slope of about 1: twice the text, twice the time *for each token*. A text of n tokens
#   then costs the sum, slope 2. Attention's own share is quadratic, so the slope is slightly above 1.
# * **With the cache** the slope is near 0: the remaining growth is the reading of the cache itself, slightly more with
#   each token.
#
# ## 4. One compile only
#
# A cache that gets longer with each token is an array with a new shape for each token, and XLA compiles once per shape:
# a second of compile time for each token of a tenth of a millisecond. So engines allocate room for many tokens at once,
# store the *number* of used tokens as a value, and mask the rest. (minillama starts with 512 positions and doubles: a
# few programs for any length. llama.cpp allocates all of `-c` at the start.)
#
# ### Exercise 3: one compile only
# One attention head, one new token. `keys` and `values` are `[S, H]`; the first `length` rows are in use, the others
# are unspecified. Put the new key and value at row `length`, let the query attend to all tokens **including the new
# one**, and return the output `[H]` and both arrays. `length` is a JAX scalar: the check compiles your function once
# and runs it with all lengths.


# %% tags=["exercise"]
def step(keys, values, length, query, key, value):
    """Attention of one token on a cache of fixed size: (output [H], keys [S, H], values [S, H])."""
    raise NotImplementedError


# %% tags=["solution"]
def step(keys, values, length, query, key, value):
    """Attention of one token on a cache of fixed size: (output [H], keys [S, H], values [S, H])."""
    keys = keys.at[length].set(key)
    values = values.at[length].set(value)
    scores = keys @ query / np.sqrt(query.shape[0]).astype(np.float32)
    scores = jnp.where(jnp.arange(keys.shape[0]) <= length, scores, -jnp.inf)
    return jax.nn.softmax(scores) @ values, keys, values


# %% [markdown] tags=["hint"]
# `keys.at[length].set(key)` returns the changed array. Compute the scores of *all* S rows and then put `-jnp.inf` where
# `jnp.arange(S) > length`; softmax turns them into zeros. `jax.nn.softmax` is allowed.

# %% tags=["check"]
check.step(step)

# %% [markdown]
# The cost of a mistake: ten tokens with a cache that grows by concatenation, and ten with room for all.

# %%
import time


def grown(keys, key):
    """The wrong way: a new shape each time."""
    return jnp.concatenate([keys, key[None]])


def placed(keys, length, key):
    """The right way: fixed capacity, and the position is a value."""
    return keys.at[length].set(key)


# A new width each time, because compiled programs are kept on disk.
newcomer = 64 + time.time_ns() % 997
key = jnp.ones(newcomer)
for name, function in (("grows", grown), ("has room", placed)):
    programs, keys = jax.jit(function), jnp.zeros((0 if function is grown else 10, newcomer))
    with watched_load():
        started = time.perf_counter()
        for length in range(10):
            keys = programs(keys, key) if function is grown else programs(keys, length, key)
        keys.block_until_ready()
        taken = 1e3 * (time.perf_counter() - started)
    print(f"a cache that {name:8}: {programs._cache_size():2} programs, {taken:6.1f} ms")

# %% [markdown]
# ## 5. Why decode is bound by memory
#
# Back to the orange bar of section 1: why is a token of the prompt cheaper than a generated one? We need a model that,
# like real ones, does not fit in the processor's caches: yours, or 73 MB of random weights in the shape of a Llama. Its text is
# nonsense, but its speed is real.
#
# A **pass** processes T tokens at once. Every weight comes from memory once per pass, for one token or for many.

# %%
big = lab_model(MODEL, big_model, ctx_size=1024)
SIZE = f"{big.path.stat().st_size / 1e6:.0f} MB"
sixteen = Prediction(
    "05",
    "pass of 16 tokens over pass of 1",
    f"A pass of 16 tokens against a pass of 1, on the {SIZE} model: how many times longer does "
    "it take?",
    "times",
)
sixteen.ask()

# %% tags=["solution"]
sixteen.record(16)  # sixteen times the arithmetic

# %%
SIZES = (1, 4, 16, 64)
with watched_load():
    work = (pass_seconds(big, size) for size in SIZES)
    passes = dict(zip(SIZES, collect(work, "passes", len(SIZES)), strict=True))
show(sixteen.compare(passes[16] / passes[1], model=1.0))
# %%
per_pass = {size: 1e3 * value for size, value in passes.items()}
per_token = {size: value / size for size, value in per_pass.items()}
show(
    power_laws(
        {"a pass": per_pass, "each of its tokens": per_token},
        f"Passes of the {SIZE} model",
        "tokens in a pass",
        "milliseconds",
    )
)

# %% [markdown]
# If only memory counted, a pass would take the same time for any T (*model says* 1, a slope of 0). If only arithmetic
# counted, the slope would be 1. The curve changes from the first to the second. The bend depends on the arithmetic that
# a machine can do while a byte comes from memory: for a CPU core it is at a few tokens, for a GPU at hundreds. A single
# user's chat decodes with T = 1, at the far left.
#
# ### Exercise 4: arithmetic intensity
# The number for this is the **operations per byte** of one pass. Each of `tokens` tokens is multiplied with each of
# `weights` weights (a multiplication and an addition), and the pass reads `weight_bytes` of weights and `cache_bytes`
# of keys and values.


# %% tags=["exercise"]
def intensity(weights: float, weight_bytes: float, cache_bytes: float, tokens: int) -> float:
    """Operations per byte of one pass."""
    raise NotImplementedError


# %% tags=["solution"]
def intensity(weights: float, weight_bytes: float, cache_bytes: float, tokens: int) -> float:
    """Operations per byte of one pass."""
    return 2 * weights * tokens / (weight_bytes + cache_bytes)


# %% [markdown] tags=["hint"]
# Numerator: 2 × weights × tokens. Denominator: the bytes that come from memory, once for all tokens of the pass.

# %% tags=["check"]
check.intensity(intensity)

# %% tags=["check-output"]
multiplied, read = prompt_weights(big.file, big.config), weight_bytes(big.file, big.config)
for name, tokens in (("decode", 1), ("lookup of 7", 8), ("prompt chunk (-ub 512)", 512)):
    got = attempt(
        intensity, multiplied, read, cache_bytes_read(big.config, big.cache_types, [512]), tokens
    )
    print(
        f"{name:22} {got:7.1f} operations per byte"
        if isinstance(got, float)
        else f"{name:22} {got}"
    )

# %%
for tokens in (1, 16, 64):  # for the figure of lab 01
    work = 2 * multiplied * tokens
    dot = Dot(work / read, work / passes[tokens])
    record_dot("05", f"{SIZE}, pass of {tokens}", dot)
rate = {
    "read from memory, one token": read / passes[1] / 1e9,
    "read from memory, 64 tokens": read / passes[64] / 1e9,
    "computed, one token": 2 * multiplied / passes[1] / 1e9,
    "computed, 64 tokens": 2 * multiplied * 64 / passes[64] / 1e9,
}
show(
    bars(
        list(rate),
        list(rate.values()),
        "Bytes and operations of one pass, per second",
        "GB or billions of operations",
        logarithmic=True,
    )
)

# %% [markdown]
# A core can do about a hundred billion operations a second and read about ten billion bytes. With 2 operations a byte
# it *waits*: decode takes as long as the weights need to arrive, so a smaller file (lab 07) is faster. With hundreds of
# operations a byte it computes, and the file's size does not matter.
#
# ## 6. The size of the cache
#
# A layer keeps what its mixer needs of earlier tokens. There are four kinds:
#
# | kind of layer | for example in | it keeps |
# |---|---|---|
# | `Attention` | Llama 3, Qwen 3 | of each position, for every **key/value** head, a key of `key_length` and a value of `value_length` numbers |
# | `Attention` with a `sliding_window` | Gemma 3, gpt-oss | the same, of the last positions only |
# | `LatentAttention` | DeepSeek V2 and V3 | of each position *one* row of `kv_lora_rank + rope_length` numbers: the keys and values of all heads are made of it |
# | `DeltaNet`, recurrent | Qwen 3.5 | no positions: a matrix of `size` × `size` for each of `value_heads` heads, and the last `taps - 1` inputs of a convolution over `channels` channels |
#
# The first three grow with the text, the second only up to its window. The last has the same size for a word and for a
# book.

# %%
from collections import Counter

from minillama.lab.experiments.cache_models import CACHE_MODELS, allocated_bytes
from minillama.lab.plots.lab_plots import lines
from minillama.model.layer_kinds import DeltaNet, LatentAttention
from minillama.model.state_sizes import window_capacity

for name, config in CACHE_MODELS.items():
    print(name)
    for layer, count in Counter(config.layers).items():
        numbers = {name: value for name, value in vars(layer).items() if type(value) is int}
        sizes = [f"{name}={value}" for name, value in numbers.items() if value]
        print(f"  {count:2} x {type(layer).__name__}\n       {' '.join(sizes)}")

# %% [markdown]
# ### Exercise 5: bytes of a layer's state
# Return the exact bytes that minillama keeps in a layer for a text of `positions` tokens. (llama.cpp keeps the same, but
# for a little other room in windows.)
#
# * The types `type_k` and `type_v` are `f32`, `f16`, `bf16` or `q8_0` (lab 02: blocks of 32 numbers after a scale of two
#   bytes). For latents both are the same type. A recurrent state is always f32.
# * A layer with a window (`layer.sliding_window > 0`) also needs room for the tokens of the next pass. It holds at most
#   `window_capacity(layer.sliding_window, 512)` positions.


# %% tags=["exercise"]
def layer_bytes(layer, positions: int, type_k: str, type_v: str) -> int:
    """Bytes that a layer keeps; isinstance(layer, DeltaNet) and the like tell the kind."""
    raise NotImplementedError


# %% tags=["solution"]
def layer_bytes(layer, positions: int, type_k: str, type_v: str) -> int:
    """Bytes that a layer keeps; isinstance(layer, DeltaNet) and the like tell the kind."""
    block = {"f32": 32 * 4, "f16": 32 * 2, "bf16": 32 * 2, "q8_0": 2 + 32}  # bytes of 32 numbers
    if isinstance(layer, DeltaNet):
        return 4 * (layer.value_heads * layer.size**2 + layer.channels * (layer.taps - 1))
    if isinstance(layer, LatentAttention):
        return positions * (layer.kv_lora_rank + layer.rope_length) * block[type_k] // 32
    if layer.sliding_window:
        positions = min(positions, window_capacity(layer.sliding_window, 512))
    head = layer.key_length * block[type_k] // 32 + layer.value_length * block[type_v] // 32
    return positions * layer.head_count_kv * head


# %% [markdown] tags=["hint"]
# Attention: positions × KV heads × (bytes of a key + bytes of a value); query heads (`head_count`) store nothing. 32
# numbers take 34 bytes in q8_0. A window: the same with `min(positions, window_capacity(...))`. Latents: positions ×
# bytes of one row. DeltaNet: 4 × (`value_heads * size**2` + `channels * (taps - 1)`).

# %% tags=["check"]
check.layer_bytes(layer_bytes)


# %% [markdown]
# The sum over all layers, next to the arrays that the engine makes:


# %% tags=["check-output"]
def model_bytes(config, positions, kind="f16"):
    """The cache of a model: the sum over its layers."""
    return sum(layer_bytes(layer, positions, kind, kind) for layer in config.layers)


for name, config in CACHE_MODELS.items():
    for kind in ("f16", "q8_0"):
        engine = allocated_bytes(config, 2048, read_cache_types(kind, kind))
        said = attempt(model_bytes, config, 2048, kind)
        print(f"{name:16} 2048 positions, {kind:4}: {engine:9} bytes; you say", said)

# %% [markdown]
# So a recurrent layer costs its whole state at the first token, and an attention layer nearly nothing. Where do they
# meet?

# %%
meeting = Prediction(
    "05",
    "tokens from which a recurrent layer is smaller",
    "Qwen3.5 0.8B: from how many tokens on is a DeltaNet layer smaller than an attention layer "
    "(f16)?",
    "tokens",
)
meeting.ask()

# %% tags=["solution"]
meeting.record(100)  # "one matrix, how large can it be?"

# %%
recurrent, *_, attention = CACHE_MODELS["Qwen3.5 0.8B"].layers[:4]


def first_smaller():
    """The shortest text for which the recurrent layer is smaller."""
    fixed = layer_bytes(recurrent, 1, "f16", "f16")
    return next(n for n in range(1, 10_000) if layer_bytes(attention, n, "f16", "f16") > fixed)


found = attempt(first_smaller)
if isinstance(found, int):
    show(meeting.compare(found))
else:
    print(found)

# %%
CONTEXTS = [2**power for power in range(7, 18)]


def mebibytes():
    """The cache of each model at each context."""
    return {
        name: [model_bytes(config, n) / 2**20 for n in CONTEXTS]
        for name, config in CACHE_MODELS.items()
    }


curves = attempt(mebibytes)
if isinstance(curves, dict):
    show(
        lines(
            curves,
            [f"{n // 1024}k" if n >= 1024 else str(n) for n in CONTEXTS],
            "The cache of four models, f16",
            "tokens of context",
            "MiB",
            logarithmic=True,
        )
    )
else:
    print(curves)

# %% [markdown]
# * **Llama 3.2 1B**: a straight line. In 4 bits the model is a file of 0.8 GB; its cache at 128k tokens is 4 GiB.
# * **Gemma 3 1B**: 22 of 26 layers stop at their window, so the curve bends. The four others go on, at a sixth of the
#   slope.
# * **DeepSeek V2 Lite** has twelve times as many weights as Llama 3.2 1B and the same cache. With the keys and values of
#   its 16 heads it would be nine times as large.
# * **Qwen3.5 0.8B**: 18 of 24 layers are the flat part on the left. Short texts cost more than elsewhere, long ones
#   little more than a third of Llama's.
#
# `minillama inspect FILE` prints the same for any file: bytes a token, bytes of windows, and bytes of recurrent states.
#
# ## 7. Depth: try it yourself
#
# Decoding reads weights *and* cache. For the storyteller, 2.4 MB of weights and 1.5 KB a position, both matter.
# **Start** measures tokens a second at increasing depths. Every curve stays, so you can compare f16 with q8_0 and f32,
# or the storyteller with the large model. The dashed line follows from the bytes alone: speed at depth 0 times weights /
# (weights + cache). **Stop** ends the measurement after the present point.

# %%
NAMES = ("storyteller, 2.4 MB", "random weights, 73 MB")
if MODEL:
    NAMES = (f"{model_name(MODEL)}, {SIZE}",)
models = dict(zip(NAMES, (llm, big), strict=False))
curves = {}


def label(settings):
    """The name of a curve."""
    return f"{settings['model'].split(',')[0]} {settings['type']}"


def by_bytes(settings, depths, speed):
    """A simple model: all bytes, at the speed of the first point."""
    chosen, types = models[settings["model"]], read_cache_types(settings["type"], settings["type"])
    weights = weight_bytes(chosen.file, chosen.config)
    return {
        depth: speed * weights / (weights + cache_bytes_read(chosen.config, types, [depth]))
        for depth in depths
    }


modelled = {}


def draw(settings):
    """All curves measured so far, without widgets: settings in, figure out."""
    return sweep(
        curves, modelled, "Tokens a second by depth", "tokens of context", "tokens a second"
    )


def measure(settings):
    """One curve without widgets: settings in; a line and a figure per point out."""
    depths = [settings["deepest"] * part // 4 for part in range(5)]
    types = read_cache_types(settings["type"], settings["type"])
    curves[label(settings)] = points = {}
    yield f"{label(settings)}\n"
    for depth, speed in decode_speeds(models[settings["model"]], depths, types):
        points[depth] = speed
        modelled.setdefault(label(settings), {}).update(by_bytes(settings, depths, points[0]))
        yield f"depth {depth}: {speed:,.0f} tokens/s\n"
        yield draw(settings)


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown("model", "model", NAMES, NAMES[0], "which file decodes"),
        Dropdown(
            "type",
            "-ctk, -ctv",
            ("f16", "f32", "bf16", "q8_0"),
            "f16",
            "how keys and values are kept",
        ),
        IntSlider("deepest", "-d, up to", 64, 1000, 1000, "the deepest of five depths"),
    ],
    draw,
    measure,
).show()

# %% [markdown]
# The same without buttons, for a script or a terminal. On the command line it is `minillama bench -p 0 -n 16 -d
# 0-1000+250 -ctk q8_0 -ctv q8_0`, and `llama-bench` takes the same flags.

# %%
DEEPEST = scaled(1000, llm, tokens=5, rows=8, seconds=20, least=256)  # 1000 of a small model
for kind in ("f16", "q8_0"):
    curve = measure({"model": NAMES[0], "type": kind, "deepest": DEEPEST})
    *_, last = collect(curve, "depths", 5)
show(last)

# %% [markdown]
# Does q8_0 decode faster, with half the bytes? Not necessarily for a model whose weights and cache fit in the
# processor's own cache: unpacking costs arithmetic, and the bytes were cheap. Fewer bytes save time only if the
# processor waits for bytes. But they always save *memory*.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * **TTFT** depends on the prompt: its tokens times the arithmetic of each, in a few large passes. **TPOT** depends on
#   the weights: their bytes divided by the memory bandwidth.
# * With the cache, one more token costs one token (slope near 0) instead of the whole text (slope 1). The price is
#   memory that grows with the context.
# * A pass reads its weights once for all its tokens. Batching, chunked prefill and speculative decoding (`--lookup`,
#   lab 08) all use this.
# * Shapes are compiled, values are not. So use a fixed capacity, a length, and a mask.
# * Grouped heads, latents, windows and recurrent states all make the cache smaller. Only a recurrent state does not grow
#   at all.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | both phases, measured | `llama-bench -p 512 -n 128 -d 0,1024` | `minillama bench -p 512 -n 128 -d 0,1024` |
# | capacity of the cache | `-c 4096` | `-c 4096`; it starts small and grows |
# | type of keys, values | `-ctk q8_0 -ctv q8_0` | the same |
# | tokens of a prompt's pass | `-ub 512` | the same |
# | keep the cache between questions | `cache_prompt` (server) | `llm.session()` |
#
# ## When you get an error
#
# * `the prompt has ... tokens, too many for a context of ...`: load with a larger `ctx_size`.
# * `Array has been deleted`: a pass takes over the memory of its input cache (*donation*). Continue with the returned
#   cache.
# * `ConcretizationTypeError`, `TracerBoolConversionError`: Python needs a number that is known only when the compiled
#   program runs. Use `jnp.where`.
# * The panel says *compiling* for some seconds: every doubling of the cache compiles another program once.
