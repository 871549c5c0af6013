# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 16 · Not all attention
#
# Attention remembers every token, and reads all of them again for the next one. Models of today avoid it in four ways:
# heads share keys, layers look at a window only, one latent stands for the keys of all heads, or a recurrence keeps a memory
# of fixed size. This lab counts what each of them reads, measures what that gives, and writes the formulas that make it
# possible.
#
# | | |
# |---|---|
# | **Afterwards you can** | say what a step of any of these layers reads at any context, write the gated delta rule and the absorption of latent attention, and explain why a cache of 4 bits rotates its keys |
# | **Time** | 75 minutes |
# | **You should know** | lab 01 (roofline), lab 03 (attention), lab 05 (the cache), lab 07 (rounding) |
# | **Runs on** | any laptop, a minute of computing, no network |
# | **In llama.cpp** | `llama-bench -d 1024,8192`, `-ctk q4_0`, `--swa-full`; architectures `deepseek2`, `gemma3`, `qwen3next`, `qwen35` |

# %%
import numpy as np

from minillama.lab import IntSlider, Panel, Prediction, running, show
from minillama.lab.checks import lab16 as check
from minillama.lab.experiments.quantised_storytellers import distance, heldout_text
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.layer_costs.delta_texts import chunked, delta_text
from minillama.lab.layer_costs.engine_window import seen_by_engine
from minillama.lab.layer_costs.loud_channels import (
    Rounding,
    key_distances,
    keys_of,
    storyteller_logits,
)
from minillama.lab.layer_costs.state_figures import (
    channel_figure,
    crossings,
    panel_figure,
    state_figure,
)
from minillama.lab.layer_costs.step_times import (
    equal_models,
    growth_sentence,
    rates_sentence,
    state_rate,
    step_times,
)
from minillama.lab.layer_costs.wide_layers import WIDE_LAYERS, allocated, bytes_read
from minillama.lab.layer_costs.written_out_latents import latent_step
from minillama.lab.own_model import lab_model
from minillama.lab.plots.serving_plots import two_sided
from minillama.measure.tables import plain_table
from minillama.model.layer_kinds import DeltaNet, LatentAttention

MODEL = None  # or the path of your own GGUF file

# %% [markdown]
# ## 1. What a step reads
#
# Five layers of one width: 128 heads of 128 channels, as in DeepSeek-V2.

# %% tags=["check-output"]
for name, layer in WIDE_LAYERS.items():
    sizes = {key: value for key, value in vars(layer).items() if type(value) is int and value}
    print(f"{name:10} {type(layer).__name__}")
    print(" " * 10, " ".join(f"{key}={value}" for key, value in sizes.items()))

# %% [markdown]
# * **MHA**, multi-head attention: each head has keys and values of its own.
# * **GQA**, grouped-query attention: 16 heads share them.
# * **window**: GQA, and a token sees only the last 1024 positions.
# * **latent**: a row of 512 numbers, from which the keys and values of *all* heads could be made, and 64 numbers of the keys
#   that are rotated (RoPE), once for all heads.
# * **recurrence**: Gated DeltaNet. A matrix for each value head, and the last inputs of a short convolution.

# %%
many = Prediction(
    "16",
    "cache of MHA over latents",
    "At 32k tokens, the cache of MHA is how many times that of latent attention?",
    "times",
)
many.ask()

# %% tags=["solution"]
many.record(16)  # "heads of 128, latents of 512: four of 64?"

# %% [markdown]
# ### Exercise 1: bytes that a step reads
# The step of token number `length` first writes what it keeps of its own token, and then reads. How many bytes of state does
# it read in a layer? (Lab 05 counted what the engine *allocates*.)
#
# * Attention keeps its cache in f16. A layer with `layer.sliding_window > 0` reads the positions in the window only: the last
#   `sliding_window` of them, the token's own included.
# * Latents are f16, too. The step reads each row once, for all heads, and for scores and values.
# * A recurrence reads its matrices and the `taps - 1` last inputs of `layer.channels` channels, all in f32.


# %% tags=["exercise"]
def read_bytes(layer, length: int) -> int:
    """Bytes that a step reads; isinstance(layer, DeltaNet) and the like tell the kind."""
    raise NotImplementedError


# %% tags=["solution"]
def read_bytes(layer, length: int) -> int:
    """Bytes that a step reads; isinstance(layer, DeltaNet) and the like tell the kind."""
    if isinstance(layer, DeltaNet):
        return 4 * (layer.value_heads * layer.size**2 + layer.channels * (layer.taps - 1))
    if isinstance(layer, LatentAttention):
        return 2 * length * (layer.kv_lora_rank + layer.rope_length)
    if layer.sliding_window:
        length = min(length, layer.sliding_window)
    return 2 * length * layer.head_count_kv * (layer.key_length + layer.value_length)


# %% [markdown] tags=["hint"]
# Attention: 2 × positions × `head_count_kv` × (`key_length` + `value_length`), with `min(length, sliding_window)` positions if
# there is a window. Latents: 2 × length × (`kv_lora_rank` + `rope_length`). DeltaNet: 4 × (`value_heads * size**2` +
# `channels * (taps - 1)`), without `length`.

# %% tags=["check"]
check.read_bytes(read_bytes)

# %% [markdown]
# Your numbers next to the arrays that the engine allocates for 4096 tokens:

# %% tags=["check-output"]
rows = []
for name, layer in WIDE_LAYERS.items():
    rows.append((name, str(attempt(read_bytes, layer, 4096)), str(allocated(layer, 4096))))
print(plain_table(("kind", "you say: read", "allocated"), rows, right=(1, 2)))

# %% [markdown]
# A window has more room than it reads: for the tokens of the next pass, and for a few that a wrong guess may take back.

# %%
ratio = bytes_read(WIDE_LAYERS["MHA"], 32768) / bytes_read(WIDE_LAYERS["latent"], 32768)
show(many.compare(ratio))
# %%
show(state_figure(WIDE_LAYERS, "What one layer reads a step"))
print(crossings(WIDE_LAYERS))

# %% [markdown]
# On these axes a line of slope 1 doubles with the context. Heads that share, and latents, move it down: less for every
# token, but still more for the next. Only the window bends it, and only the recurrence is flat from the beginning. For short
# texts it is the dearest but one; and it also *writes* its whole state in each step, where the others write one position.
#
# Your own sizes (heads have 128 channels; the recurrence has as many heads). The legend has the MiB at the marked context, and
# in brackets the context from which on a kind reads more than the recurrence:

# %% tags=["panel"]
panel = Panel(
    [
        IntSlider("layers", "layers", 1, 80, 32, "of the same kind"),
        IntSlider("heads", "heads", 8, 128, 32, "of queries"),
        IntSlider("shared", "heads that share", 1, 16, 4, "GQA and window"),
        IntSlider("window", "window", 128, 8192, 1024, "positions"),
        IntSlider("latent", "latent", 64, 1024, 512, "numbers, and 64 rotated ones"),
        IntSlider("context", "context, k", 1, 128, 32, "thousand tokens"),
    ],
    panel_figure,
).show()

# %% [markdown]
# ## 2. What a window shows
#
# ### Exercise 2: the mask of a window
# `tokens` queries come after `start` cached positions: query *t* is at position `start + t`. Return a bool array of `tokens`
# rows and `start + tokens` columns, True where the query sees the position. A token sees itself and earlier ones, at most
# `window` positions in all; `window` 0 means all.


# %% tags=["exercise"]
def window_mask(start: int, tokens: int, window: int):
    """Where queries see positions, bool [tokens, start + tokens]."""
    raise NotImplementedError


# %% tags=["solution"]
def window_mask(start: int, tokens: int, window: int):
    """Where queries see positions, bool [tokens, start + tokens]."""
    back = start + np.arange(tokens)[:, None] - np.arange(start + tokens)
    return (back >= 0) & ((back < window) if window else True)


# %% [markdown] tags=["hint"]
# The distance from a query back to a position is an array: `start + np.arange(tokens)[:, None] - np.arange(start + tokens)`.
# It must not be negative, and it must be smaller than the window.

# %% tags=["check"]
check.window_mask(window_mask)

# %% tags=["check-output"]
engine = seen_by_engine(6, 5, 4)
yours = attempt(window_mask, 6, 5, 4)
print("the engine, 5 tokens after 6, window 4:")
print("\n".join("".join("#" if seen else "." for seen in row) for row in engine))
same = np.array_equal(yours, engine) if isinstance(yours, np.ndarray) else yours
print("yours is the same:", same)

# %% [markdown]
# A window does not make a model blind for what is further back: layer 2 reads positions that have read others in layer 1. After
# *n* layers a token can know of something n × (window - 1) positions back. But it cannot *look up* a name there. So most
# models mix: five windows and one attention to all (Gemma 3), three recurrences and one attention (Qwen3-Next, Qwen3.5).
#
# ## 3. What a step takes
#
# Five small models with random weights, of width 1024 and 16 heads of 64. They differ in their layers only; the window has 1024
# positions and reads like MHA within them. Nobody needs to read 8192 tokens for a measurement: the cache holds zeros, and the
# time of a step does not depend on the numbers.

# %%
with running("random models are written and loaded", seconds=6):
    models = equal_models()
rows = [
    (name, *(f"{model.state_bytes(length) / 2**20:.2f}" for length in (1024, 8192)))
    for name, model in models.items()
]
print(plain_table(("kind", "MiB read, 1k", "MiB read, 8k"), rows, right=(1, 2)))

# %%
fewer = models["MHA"].state_bytes(8192) / models["latent"].state_bytes(8192)
faster = Prediction(
    "16",
    "step of MHA over latents",
    f"At 8192 tokens latents read {fewer:.1f} times less state than MHA. "
    "The step of MHA takes how many times as long?",
    "times",
)
faster.ask()

# %% tags=["solution"]
faster.record(4)  # "less than the bytes say, because the weights are read too"

# %%
times = step_times(models)
show(faster.compare(times.ratio(("MHA", 8192), ("latent", 8192)).middle, model=fewer))
for name in models:
    measurement("16", f"step at 8192 tokens, {name}", 1000 * times.seconds(name, 8192), "ms")
# %%
curves = {name: times.speeds(name) for name in models}
title = "Tokens a second by context"
show(two_sided(times.contexts, curves, title, "tokens", "tokens a second", logarithmic="xy"))
for name in models:
    print(growth_sentence(times, name))
print(times.ratio(("MHA", 8192), ("latent", 8192)), "MHA over latents at 8192 tokens")

# %% [markdown]
# What does a kind make of its bytes? The state that the long context adds, over the time that it adds:

# %%
for name, model in models.items():
    rate = state_rate(times, name, model)
    print(f"{name:10}", "no growth is seen" if rate is None else f"{rate / 1e9:.2f} GB/s of state")
print(rates_sentence(times, models, "latent", "MHA"))

# %% [markdown]
# If all kinds waited for memory, these rates would be equal. MHA multiplies a number of its cache once and forgets it; GQA uses
# it for 4 heads here. A number of a latent is used by 16 heads, for scores *and* for values: 32 multiplications for 2 bytes.
# On a GPU, with hundreds of operations for each byte of bandwidth, they are nearly free. Where arithmetic is the limit, they
# are the time itself: a layer that reads few bytes need not be a fast one (lab 01: the roofline has two roofs).
#
# ## 4. A memory of fixed size
#
# Gated DeltaNet keeps a matrix $M$ for each head. A token has a query $q$, a key $k$ of length 1, a value $v$, a share $g$ that
# stays of the memory, and a strength $\beta$ of writing:
#
# $$M' = g M, \qquad M \leftarrow M' + \beta\,(v - M' k)\,k^\top, \qquad \text{found} = M q$$
#
# $M'k$ is what the memory already has under this key. Only the difference is written: with $\beta = 1$ the new value *replaces*
# the old one.
#
# ### Exercise 3: the gated delta rule
# `q` and `k` are [T, K], `v` is [T, V], `g` and `beta` are [T]; `memory` is [V, K]. Return `(found, memory)`: what the queries
# find, [T, V], and the memory after the last token.


# %% tags=["exercise"]
def delta_rule(q, k, v, g, beta, memory):
    """(What each query finds, the memory after all tokens)."""
    raise NotImplementedError


# %% tags=["solution"]
def delta_rule(q, k, v, g, beta, memory):
    """(What each query finds, the memory after all tokens)."""
    found = []
    for t in range(len(q)):
        memory = g[t] * memory
        memory = memory + beta[t] * np.outer(v[t] - memory @ k[t], k[t])
        found.append(memory @ q[t])
    return np.array(found), memory


# %% [markdown] tags=["hint"]
# A loop over tokens with three lines: fade (`memory = g[t] * memory`, a new array), write with `np.outer(..., k[t])`, read with
# `memory @ q[t]`.

# %% tags=["check"]
check.delta_rule(delta_rule)

# %% [markdown]
# A loop over tokens cannot read a prompt quickly. The engine cuts the text into chunks of 64 tokens, and computes a chunk with
# products of matrices (`by_chunk` in `minillama/model/layers/recurrent/delta_rule.py` derives it). The numbers must be the same;
# and so must be those of a text that is cut anywhere, because a chat comes in pieces:

# %% tags=["check-output"]
text, empty = delta_text(16, tokens=200, size=16), np.zeros((16, 16))


def largest_differences():
    """From the chunked form: found, memory; then from a text in two pieces, for every cut."""
    found, memory = delta_rule(*text.part(0), empty)
    parallel = chunked(text, empty)
    split = 0.0
    for cut in range(0, 201, 10):
        first, between = delta_rule(*text.part(0, cut), empty) if cut else ([], empty)
        second, after = delta_rule(*text.part(cut), between) if cut < 200 else ([], between)
        split = max(split, abs(after - memory).max())
        pieces = np.concatenate([piece for piece in (first, second) if len(piece)])
        split = max(split, abs(pieces - found).max())
    return abs(parallel[0] - found).max(), abs(parallel[1] - memory).max(), split


with running("both forms, and every cut", seconds=6):
    differences = attempt(largest_differences)
if isinstance(differences, tuple):
    names = ("chunked form, found", "chunked form, memory", "text cut in two, any place")
    for name, value in zip(names, differences, strict=True):
        verdict = "the same" if value < 1e-4 else "different"
        print(f"{name}: {verdict}, within {'1e-4' if value < 1e-4 else f'{value:.2g}'}")
else:
    print(differences)

# %% [markdown]
# What does the fixed size cost? Write pairs of random keys and values with g = 1 and beta = 1, then ask for all of them. A
# matrix of 64 columns has room for 64 keys at right angles; random keys are not at right angles:


# %% tags=["check-output"]
def recalled(pairs):
    """Relative error of values that are asked for after `pairs` were written."""
    asked = delta_text(4, pairs, size=64)
    ones = np.ones(pairs)
    _, memory = delta_rule(asked.k, asked.k, asked.v, ones, ones, np.zeros((64, 64)))
    return float(np.linalg.norm(asked.k @ memory.T - asked.v) / np.linalg.norm(asked.v))


for pairs in (1, 4, 16, 64, 256):
    error = attempt(recalled, pairs)
    print(f"{pairs:4} pairs:", f"error {error:.2f}" if isinstance(error, float) else error)

# %% [markdown]
# Attention would find every pair. This is the other reason for mixed models: a few layers that look up, many that remember
# the gist.
#
# ## 5. One latent for all heads
#
# A head of latent attention makes its key from the latent $c$: $k = [W c,\ k_\text{rope}]$. Written out for every token and head,
# keys and values would be as large as those of MHA. But
#
# $$q \cdot (W c) = (W^\top q) \cdot c$$
#
# so the *query* goes into the space of latents, once a step, and all heads read the same rows $[c,\ k_\text{rope}]$.
#
# ### Exercise 4: absorb the matrix
# `q` is [heads, nope + rope]: first the numbers that do not rotate, then the rotated ones. `w_k` is [heads, nope, rank]. Return
# queries [heads, rank + rope] whose products with the rows of the cache are those with the keys. Do not scale.


# %% tags=["exercise"]
def absorb(q, w_k):
    """Queries for the rows of the cache, [heads, rank + rope]."""
    raise NotImplementedError


# %% tags=["solution"]
def absorb(q, w_k):
    """Queries for the rows of the cache, [heads, rank + rope]."""
    nope = w_k.shape[1]
    for_latents = np.einsum("hn,hnr->hr", q[:, :nope], w_k)
    return np.concatenate([for_latents, q[:, nope:]], axis=1)


# %% [markdown] tags=["hint"]
# The first `w_k.shape[1]` numbers of each head's query times its own matrix: `np.einsum("hn,hnr->hr", ...)`. Then the rest of
# the query, as it is.

# %% tags=["check"]
check.absorb(absorb)

# %% tags=["check-output"]
step = latent_step(16, tokens=500)
written, taken = step.written_out(), attempt(step.absorbed, absorb)
if isinstance(taken, np.ndarray):
    print("the result is the same:", bool(np.allclose(written, taken)))
else:
    print(taken)
slow, quick = step.products()
print(f"numbers read: {step.numbers_written_out()} written out, {step.rows.size} in latents")
print(f"multiplications for the scores: {slow} written out in the step, {quick} absorbed")

# %% [markdown]
# The rotated part cannot be absorbed: a rotation between $W$ and $c$ would be another matrix for every position. So it is kept
# apart, once for all heads. In a long prompt the absorbed form is not always the better one: with many queries, keys that are
# written out once serve all of them, and with DeepSeek-V2's sizes a product then has 192 numbers, not 576.
#
# ## 6. A cache of 4 bits
#
# `-ctk q4_0` keeps keys in blocks of 32 numbers with one scale (lab 07), a quarter of f16 and a little more. If one channel is
# much larger than the others, it sets the scale, and the others get the few steps that are left. Keys of large models have such
# channels. Those of the storyteller, whose passes in numpy are quick, are mild, so we make one: a pair of channels of each key times 8, and the same pair of each
# query over 8. All products stay the same, and so does the text.
#
# ### Exercise 5: rotate
# The Walsh-Hadamard matrix spreads each channel over all of them. Multiply the last axis of `x`, with *n* numbers (a power of
# two), by the matrix whose sign at *[i, j]* is the parity of the number of bits that *i* and *j* have in common, and divide
# by $\sqrt{n}$. It needs no matrix: for steps 1, 2, 4, ... n/2 replace *a* and *b* that are a step apart by *a + b* and *a - b*.


# %% tags=["exercise"]
def rotated(x):
    """W x / sqrt(n) along the last axis."""
    raise NotImplementedError


# %% tags=["solution"]
def rotated(x):
    """W x / sqrt(n) along the last axis."""
    n, width, y = x.shape[-1], 1, x
    while width < n:
        a, b = np.moveaxis(y.reshape(*x.shape[:-1], -1, 2, width), -2, 0)
        y = np.stack([a + b, a - b], axis=-2).reshape(x.shape)
        width *= 2
    return y / np.sqrt(n)


# %% [markdown] tags=["hint"]
# `y.reshape(..., n // (2 * width), 2, width)` has the pairs *a, b* on the last axis but one. Or build the matrix:
# `signs = [[(-1) ** (i & j).bit_count() for j in range(n)] for i in range(n)]`, and return `x @ np.array(signs) / np.sqrt(n)`.

# %% tags=["check"]
check.rotated(rotated)

# %% [markdown]
# Twice is nothing, and (W q) · (W k) = q · k. So the engine rotates queries and keys, and rounds the rotated keys.

# %%
storyteller = lab_model(None)
ids = storyteller.tokenizer.encode(heldout_text())[:160]
loud = keys_of(ids, layer=0, factor=8.0)
shown = {"loud": loud}
turned = attempt(rotated, loud)
is_rotated = isinstance(turned, np.ndarray) and turned.shape == loud.shape
if is_rotated:
    shown["rotated"] = turned
show(channel_figure(shown, "Keys of layer 0: the largest number of each channel"))

# %%
gain = Prediction(
    "16",
    "KL without over with rotation",
    "Loud keys in q4_0: the KL divergence without rotation is how many times that with it?",
    "times",
)
gain.ask()

# %% tags=["solution"]
gain.record(3)

# %%
ways = {kind: Rounding(kind) for kind in ("q8_0", "q4_0")}
if is_rotated:
    ways |= {f"{kind}, rotated": Rounding(kind, rotated) for kind in ("q8_0", "q4_0")}
with running("passes in numpy", seconds=15):
    base = storyteller_logits(ids)
    found = {factor: key_distances(ids, ways, factor, base) for factor in (1.0, 8.0)}
rows = [
    (f"×{factor:g}", name, f"{each.kld:.5f}", f"{each.same_top:.0%}")
    for factor, of_ways in found.items()
    for name, each in of_ways.items()
]
print(plain_table(("loud", "keys", "KL, nats", "same top token"), rows, right=(2, 3)))
if is_rotated:
    show(gain.compare(found[8.0]["q4_0"].kld / found[8.0]["q4_0, rotated"].kld))
else:
    print("the comparison needs exercise 5")

# %% [markdown]
# And the engine itself? Like llama.cpp it rotates heads whose length is a multiple of 64. The storyteller's have 32, so its
# keys are stored as they are: compare the line with "×1, q4_0" above. (A `MODEL` of your own runs here.)

# %%
llm = lab_model(MODEL)
ids = llm.tokenizer.encode(heldout_text())[:160]
with running("exact keys", seconds=20 if MODEL else 3):
    exact = llm.logits(ids)
for kind in ("q8_0", "q4_0"):
    with running("rounded keys", seconds=20 if MODEL else 3):
        kept = attempt(lambda kind=kind: lab_model(MODEL, cache_type_k=kind).logits(ids))
    words = kept if isinstance(kept, str) else f"KL {distance(exact, kept).kld:.5f} nats"
    print(f"the engine, -ctk {kind}: {words}")

# %% [markdown]
# The table has the loud channel as the cause: its factor changes nothing but the rounding. Rotation does not make the numbers
# smaller: the lengths of keys stay. It makes them more *equal*, and equal numbers use the steps of their block.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * MHA, GQA and latents read more with every token; they differ in the factor. A window stops, a recurrence never grows, and
#   costs its whole state at the first token.
# * Bytes are the time where memory is the limit. Latents use each byte for all heads, so their limit is arithmetic much earlier.
# * A recurrence is a loop of three lines. Its chunked form gives the same numbers, and any split of a text the same state. A
#   fixed size forgets: it cannot look everything up.
# * Absorption moves a matrix from the keys of all tokens to the query of one.
# * A loud channel takes the scale of its block. A rotation spreads it, and changes no product.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | speed by context | `llama-bench -d 1024,8192` | `minillama bench -d 1024,8192` |
# | types of the cache | `-ctk q8_0 -ctv q8_0` | the same; `ml.load(cache_type_k="q8_0")` |
# | keep all positions of windows | `--swa-full` | no option: what the window needs |
# | quality of a cache | `llama-perplexity --kl-divergence -ctk q4_0` | `minillama perplexity --kl-divergence -ctk q4_0` |
# | a random model of a kind | | `minillama synth tiny-deepseek2`, `tiny-qwen35`, `tiny-gemma3` |
#
# ## When you get an error
#
# * `other processes used ... of the CPU cores`: the steps of section 3 say little. Close other programs, run the cell again.
# * `cannot tell`: the rounds do not agree; the interval is next to it.
# * `... in blocks of 32 values, but a head of this model has ...`: this cache type does not divide the heads; use f16.
# * `cache_type_k is ... and cache_type_v is ..., but this model keeps one array for both`: latents have one type.
# * `operands could not be broadcast`: look at the shapes; the memory is [V, K], the matrices of heads [heads, nope, rank].
