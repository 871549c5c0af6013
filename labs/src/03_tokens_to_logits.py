# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 03 · From tokens to logits
#
# From "Once upon a" to " time" the model applies four functions of about three lines each, a few times. In this lab you
# write them, run them on the real weights of a model, and compare your numbers with the engine's, layer by layer, until
# they agree.  The whole model in plain numpy is one short file, `minillama/lab/llama_numpy.py`. Read it
# first if you want to see the formulas together; it also contains the solutions of exercises 1 to 5.
#
# | | |
# |---|---|
# | **Afterwards you can** | write RMSNorm, RoPE, grouped-query attention and SwiGLU from memory, build a Llama of them, and find *in which layer* an implementation goes wrong |
# | **Time** | 75 minutes |
# | **You should know** | lab 02 for the names of the tensors; numpy with shapes, matrix products, softmax |
# | **Runs on** | any laptop, 15 seconds of computing, no network |
# | **In llama.cpp** | `llama-eval-callback -m model.gguf -p "..."` prints the same intermediate tensors under the same names |

# %%
from dataclasses import replace

import numpy as np

from minillama.gguf import dequantize, open_gguf
from minillama.lab import IntSlider, Panel, Prediction, TextBox, running, show
from minillama.lab.checks import lab03 as check
from minillama.lab.checks.lab03 import attention_variant, rope_variant
from minillama.lab.grading.check import attempt
from minillama.lab.llama_numpy import (
    WEIGHT_NAMES,
    Functions,
    Sizes,
    forward,
    is_plain_llama,
    read_sizes,
    relative_difference,
)
from minillama.lab.own_model import lab_model
from minillama.lab.plots.lab_plots import attention_map, lines
from minillama.lab.widgets.figure import text_table

MODEL = None  # or the path of your own GGUF file
llm = lab_model(MODEL)
PROMPT = "Once upon a time, there was a little girl named Lily. She had a red"
ids = llm.tokenizer.encode(PROMPT)
with running("the first pass compiles", seconds=2):
    trace = llm.trace(ids)

# %% [markdown]
# ## 1. What goes in, what comes out
#
# Text becomes tokens, and a token becomes a row of a table. All further steps are arithmetic on rows of numbers (256 in the storyteller).
# `llm.trace(ids)` runs the engine and returns every intermediate result under its llama.cpp name.

# %% tags=["check-output"]
print([llm.tokenizer.piece(token, special=True).decode(errors="replace") for token in ids])
for name, value in trace.items():
    if name.endswith("-0") or "-" not in name:
        print(f"{name:16} {value.shape}")

# %% [markdown]
# Read it from top to bottom: `inp_embd` are the rows of the table, [T, D]. Then comes layer 0, which turns [T, D] into
# [T, D] and has two halves: **attention**, in which tokens exchange information, and **feed-forward**, which treats
# each token separately. Two more such layers, a last norm, and one more product with the table give `result_output`:
# for each of the T tokens a number for each of the V possible next tokens (2,048 in the storyteller).
#
# All shapes use the same letters: T tokens, D model width, N query heads, K key/value heads, H head size, F
# feed-forward width.

# %% tags=["check-output"]
sizes = read_sizes(open_gguf(llm.path))
print(sizes)

# %% [markdown]
# ## 2. Which token attends to which
#
# A well-known figure: each row is a token and shows its attention to the tokens before it. Step through layers and
# heads. Some heads prefer near neighbours. Some attend to the very first token when nothing else fits (an *attention
# sink*). In a late layer, one head at the second "had a" attends to "ball": the model is about to repeat the word.

# %%
traces = {}  # by prompt: a new length is compiled once, then layers and heads are instant


def draw_head(settings):
    """The attention map without widgets: settings in, figure out."""
    tokens = llm.tokenizer.encode(settings["prompt"])
    if settings["prompt"] not in traces:
        traces[settings["prompt"]] = llm.trace(tokens)
    weights = traces[settings["prompt"]][f"kq_soft_max-{settings['layer']}"][settings["head"]]
    pieces = [llm.tokenizer.piece(token, special=True).decode(errors="replace") for token in tokens]
    shared = settings["head"] // (sizes.heads // sizes.kv_heads)
    title = f"layer {settings['layer']}, head {settings['head']} (key head {shared})"
    return attention_map(pieces, weights[:, : len(tokens)], title)


# %% tags=["panel"]
panel = Panel(
    [
        TextBox("prompt", "prompt", "Lily had a red ball. Tom had a blue", "Enter to use it"),
        IntSlider("layer", "layer", 0, llm.config.block_count - 1, 2, "0 is the first"),
        IntSlider(
            "head", "query head", 0, llm.config.head_count - 1, 2, "two neighbours share a key head"
        ),
    ],
    draw_head,
    compiles=lambda settings: settings["prompt"] not in traces,
).show()

# %% [markdown]
# ## 3. RMSNorm
#
# Before each half of a layer, every row is scaled to the same size. So no layer depends on the scale that earlier
# layers produce:
#
# $$\operatorname{rms\_norm}(x) = \frac{x}{\sqrt{\frac1D\sum_d x_d^2 + \varepsilon}} \cdot w$$
#
# Each row is scaled separately. ε (here 1e-5, from the file's metadata) avoids a division by zero for a row of zeros.
#
# ### Exercise 1


# %% tags=["exercise"]
def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """Rows of x [T, D] at root mean square 1, times the weight [D]."""
    raise NotImplementedError


# %% tags=["solution"]
def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """Rows of x [T, D] at root mean square 1, times the weight [D]."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


# %% [markdown] tags=["hint"]
# `np.mean(x * x, axis=-1, keepdims=True)` has shape [T, 1] and divides x row by row.

# %% tags=["check"]
check.rms_norm(rms_norm)

# %% [markdown]
# ## 4. RoPE
#
# Attention alone does not depend on the order of the tokens. RoPE adds the order by *rotating* queries and keys: the H
# numbers of a head form H/2 pairs, each a point of a plane. Pair *i* of the token at position *t* is rotated by the
# angle
#
# $$\theta_{t,i} = t \cdot \text{base}^{-2i/H} \qquad (a, b) \mapsto (a\cos\theta - b\sin\theta,\; a\sin\theta + b\cos\theta)$$
#
# The scalar product of a query and a key then depends only on the distance of their positions. The first pairs rotate
# fast and separate close neighbours. The last ones rotate so slowly that they hardly change over a page.
#
# **Which numbers form a pair?** In files of the llama family neighbours, (0, 1), (2, 3), ... ("NORM"). In Qwen, Gemma,
# Phi the first half goes with the second, (0, H/2), (1, H/2 + 1), ... ("NEOX"). To use the wrong style is a classic
# bug, because nothing crashes.
#
# ### Exercise 2


# %% tags=["exercise"]
def rope(x: np.ndarray, base: float) -> np.ndarray:
    """Rotate the neighbouring pairs of x [T, N, H]; positions are 0 to T - 1."""
    raise NotImplementedError


# %% tags=["solution"]
def rope(x: np.ndarray, base: float) -> np.ndarray:
    """Rotate the neighbouring pairs of x [T, N, H]; positions are 0 to T - 1."""
    T, N, H = x.shape
    angle = np.arange(T)[:, None] * base ** (-np.arange(0, H, 2) / H)  # [T, H/2]
    cos, sin = (
        np.cos(angle)[:, None, :],
        np.sin(angle)[:, None, :],
    )  # [T, 1, H/2]: the same for all heads
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(T, N, H)


# %% [markdown] tags=["hint"]
# `x[..., 0::2]` and `x[..., 1::2]` are the two halves of all pairs, [T, N, H/2]. To interleave them again: stack on a
# *new last* axis, which gives [T, N, H/2, 2], and reshape.

# %% tags=["check"]
check.rope(rope)

# %% [markdown]
# ## 5. Attention, with shared heads
#
# For every head: the scores of each query with each key, divided by $\sqrt H$; later keys masked with −∞; softmax over
# the keys; and the weighted sum of the values. With **grouped-query attention** there are fewer key/value heads than
# query heads: N/K neighbouring query heads share one. Here N = 8 and K = 4, so the cache of keys and values is half as
# large. In Llama 3 it is a quarter, which makes long contexts affordable (lab 05).
#
# ### Exercise 3


# %% tags=["exercise"]
def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention: q [T, N, H], k and v [T, K, H]; returns [T, N*H]."""
    raise NotImplementedError


# %% tags=["solution"]
def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention: q [T, N, H], k and v [T, K, H]; returns [T, N*H]."""
    T, N, H = q.shape
    G = N // k.shape[1]
    k, v = np.repeat(k, G, axis=1), np.repeat(v, G, axis=1)
    scores = np.einsum("TNH,SNH->NTS", q, k) / np.sqrt(H)
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return np.einsum("NTS,SNH->TNH", weights, v).reshape(T, N * H)


# %% [markdown] tags=["hint"]
# `np.repeat(k, N // K, axis=1)` gives every query head its key head: 0 0 1 1 2 2 3 3. `np.tri(T, dtype=bool)` is True
# where the key is not later than the query. `np.einsum("TNH,SNH->NTS", q, k)` needs no transposition.

# %% tags=["check"]
check.attention(attention)

# %% [markdown]
# ## 6. SwiGLU
#
# The second half of a layer has three steps. Two products widen each row from D to F. One of the results (*gate*),
# after silu, scales the other (*up*). A third product (*down*) returns to D. These three matrices hold two thirds of
# the weights of a large model.
#
# $$\operatorname{silu}(z) = \frac{z}{1 + e^{-z}} \qquad y = \big(\operatorname{silu}(x G^\top) \odot x U^\top\big) D^\top$$
#
# A matrix is stored as (outputs, inputs), so the product uses its transpose.
#
# ### Exercise 4


# %% tags=["exercise"]
def swiglu(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """x [T, D] through gate and up [F, D] and down [D, F]."""
    raise NotImplementedError


# %% tags=["solution"]
def swiglu(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """x [T, D] through gate and up [F, D] and down [D, F]."""
    z = x @ gate.T
    return (z / (1 + np.exp(-z)) * (x @ up.T)) @ down.T


# %% tags=["check"]
check.swiglu(swiglu)

# %% [markdown]
# ## 7. A layer, and a model
#
# Combine the functions. `w` holds the nine tensors of a layer under their names in the file: `attn_norm`, `attn_q`,
# `attn_k`, `attn_v`, `attn_output`, `ffn_norm`, `ffn_gate`, `ffn_up`, `ffn_down`. Each half *adds* to x and never
# replaces it: this is the residual stream.
#
# ### Exercise 5


# %% tags=["exercise"]
def layer(x: np.ndarray, w: dict[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    """One layer of a Llama, x [T, D] to [T, D], with your four functions."""
    raise NotImplementedError


# %% tags=["solution"]
def layer(x: np.ndarray, w: dict[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    """One layer of a Llama, x [T, D] to [T, D], with your four functions."""
    T = len(x)
    h = rms_norm(x, w["attn_norm"], sizes.epsilon)
    q = rope((h @ w["attn_q"].T).reshape(T, sizes.heads, -1), sizes.base)
    k = rope((h @ w["attn_k"].T).reshape(T, sizes.kv_heads, -1), sizes.base)
    v = (h @ w["attn_v"].T).reshape(T, sizes.kv_heads, -1)
    x = x + attention(q, k, v) @ w["attn_output"].T
    h = rms_norm(x, w["ffn_norm"], sizes.epsilon)
    return x + swiglu(h, w["ffn_gate"], w["ffn_up"], w["ffn_down"])


# %% [markdown] tags=["hint"]
# Norm; three products, reshaped to heads; rope on q and k, not on v; attention; the product with `attn_output`; add to
# x. Norm with the *other* weight; swiglu; add.

# %% tags=["check"]
check.layer(layer)

# %% [markdown]
# Now run your five functions on real weights. If your layer is right, this is a language model. (From here on the model is
# the storyteller, unless yours is a plain Llama of at most 200 million weights: other families need more than these functions.)

# %% tags=["check-output"]
plain = llm if is_plain_llama(llm.file) else lab_model(None)
file, plain_ids = open_gguf(plain.path), plain.tokenizer.encode(PROMPT)
plain_trace = trace if plain is llm else plain.trace(plain_ids)
table = dequantize(file.tensors["token_embd.weight"])
head = dequantize(file.tensors.get("output.weight", file.tensors["token_embd.weight"]))
last_norm, plain_sizes = dequantize(file.tensors["output_norm.weight"]), read_sizes(file)
layers = [
    {name: dequantize(file.tensors[f"blk.{i}.{name}.weight"]) for name in WEIGHT_NAMES}
    for i in range(plain.config.block_count)
]


def next_piece(ids: list[int]) -> str:
    """The likeliest next token by your functions."""
    x = table[ids]
    for w in layers:
        x = layer(x, w, plain_sizes)
    logits = rms_norm(x, last_norm, plain_sizes.epsilon)[-1] @ head.T
    return plain.tokenizer.piece(int(np.argmax(logits))).decode()


print("your model continues:  ", PROMPT, "...", attempt(next_piece, plain_ids))
print("the engine continues:  ", PROMPT, "...", plain.generate(PROMPT, n=1, temp=0.0))

# %% [markdown]
# ## 8. Comparison with the engine, layer by layer
#
# One right token proves little. So compare every named result with the engine's; the error is relative to its size. The
# second line is `minillama/lab/llama_numpy.py`, plain numpy in 32 bits throughout: the error of a right implementation.

# %%
RESULTS = [
    f"{name}-{i}"
    for i in range(plain.config.block_count)
    for name in ("attn_norm", "Qcur", "attn_out", "ffn_norm", "ffn_out", "l_out")
]
RESULTS.append("result_output")


def errors(found, reference) -> list[float]:
    """Relative difference of every result from the reference."""
    return [max(relative_difference(found[name], reference[name]), 1e-9) for name in RESULTS]


numpy_32 = forward(file, plain_ids, Functions())
found = attempt(
    lambda: errors(
        forward(file, plain_ids, Functions(rms_norm, rope, attention, swiglu)), plain_trace
    )
)
series = {"yours": found} if isinstance(found, list) else {}
print("yours:", "compared" if series else found)
show(
    lines(
        series | {"plain numpy": errors(numpy_32, plain_trace)},
        RESULTS,
        "Error against the engine",
        "result",
        "error, relative",
        logarithmic=True,
    )
)
# %% [markdown]
# How to read it: if your line is equal to plain numpy's, yours is right, and the remaining error comes from the engine.
# At `attn_norm-0`, before the first product, it is below 1e-6: rounding of 32-bit numbers in another order. After that
# it is 1e-3 to 1e-2 on a CPU, because the engine works like llama.cpp: before each product it rounds the activations to
# 8 bits, with one scale for 32 neighbours, because a processor multiplies bytes much faster than floats. (Start Jupyter
# with the environment variable `MINILLAMA_CPU_KERNELS=off` to multiply in 32 bits: the error is 1e-7 to 1e-6
# everywhere.) An error above 0.1 is a bug, and the first wrong result shows its place.
#
# ## 9. Bugs that do not crash
#
# Three classic mistakes, made on purpose. First predict: RoPE with the wrong pairs. The engine predicts a next token at
# each position of the prompt. At what percentage of the positions will the broken model predict a different one?

# %%
changed = Prediction(
    "03",
    "next tokens changed by wrong RoPE pairs",
    "How many percent of the predicted next tokens change when RoPE takes the wrong pairs?",
    "%",
)
changed.ask()

# %% tags=["solution"]
changed.record(100)  # a broken rotation must break everything


# %%
def outside(x, weight, epsilon):
    """RMSNorm with epsilon outside of the root."""
    return x / (np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + epsilon) * weight


BUGS = {
    "RoPE pairs of NEOX": replace(Functions(), rope=rope_variant(halves=True)),
    "no causal mask": replace(Functions(), attention=attention_variant(causal=None)),
    "epsilon outside the root": replace(Functions(), rms_norm=outside),
}
right = plain_trace["result_output"].argmax(axis=-1)
broken = {name: forward(file, plain_ids, bug) for name, bug in BUGS.items()}
wrong = {
    name: 100 * float(np.mean(found["result_output"].argmax(axis=-1) != right))
    for name, found in broken.items()
}
show(changed.compare(wrong["RoPE pairs of NEOX"]))
# %%
show(
    lines(
        {name: errors(found, numpy_32) for name, found in broken.items()}
        | {"the engine": errors(plain_trace, numpy_32)},
        RESULTS,
        "Three bugs that do not crash, and the engine",
        "result",
        "error against plain numpy, relative",
        logarithmic=True,
    )
)
print(
    text_table(
        ("bug", "next tokens changed"), [(name, f"{share:.0f} %") for name, share in wrong.items()]
    )
)

# %% [markdown]
# Here the reference is plain numpy. A misplaced ε is invisible in the text and visible in the figure: the error is
# small and *everywhere*. It is even smaller than the engine's error from 8-bit activations, so a comparison with the
# engine cannot find it: the reference must be more precise than the bug is large. The wrong pairs begin exactly at
# `Qcur-0`, the missing mask exactly at `attn_out-0`. The surprise: both are large errors in every layer, and still most
# predictions stay the same, because much of English follows from the last few words alone. A story from a broken engine
# still reads like a story. Therefore engines are compared number by number.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * A Llama is: table lookup, (norm, attention, add, norm, feed-forward, add) × layers, norm, product with the table.
# * Position enters only through RoPE. The order of the pairs is a convention of the model family, and a wrong one does
#   not crash.
# * Grouped heads shrink only the cache of keys and values: to K/N of its size.
# * Debug by comparing named intermediate results: the first wrong one shows the bug. Know the precision of your
#   reference.
#
# | step | with llama.cpp | with minillama |
# |---|---|---|
# | text to tokens | `llama-tokenize -m model.gguf -p "..."` | `llm.tokenizer.encode(...)` |
# | intermediate results | `llama-eval-callback -m model.gguf -p "..."` | `llm.trace(ids)` |
# | logits | `llama_get_logits` (C) | `llm.logits(ids)` |
# | this model in numpy | none | `minillama/lab/llama_numpy.py` |
# | the same in JAX, all families | `src/models/llama.cpp` and others | `minillama/model/forward.py`: read it now, you know its formulas |
#
# **What other families change.** Nearly every open model is your Llama with some of these differences. A file says the
# sizes; the table in `minillama/model/architectures.py` has one row for each family with the rest.
#
# | part | in your Llama | elsewhere |
# |---|---|---|
# | norm | RMSNorm before attention and before the feed-forward network | also after both (Gemma 2 and 3, GLM-4), only after (OLMo 2, EXAONE 4), LayerNorm with the mean removed (Phi-2, StarCoder 2, Command R7B) |
# | order | attention, then the feed-forward network | both at once from the same norm (Phi-2, Command R7B) |
# | queries and keys | as projected | with biases (Qwen 2, Seed OSS), each head normed (Qwen 3, Gemma 3), all heads normed together (OLMo 2, MiniMax M2), normed after RoPE (Hunyuan) |
# | RoPE | neighbouring pairs, all channels, every layer | halves (Qwen, Gemma, Phi), a part of the channels (GLM, Phi-2), not in every layer (SmolLM 3), only in layers with a window (Command R7B) |
# | seen positions | all earlier ones | in some layers only a window (Gemma 2 and 3, OLMo 3, gpt-oss) |
# | softmax | over the scores | scores are capped (Gemma 2); a learned logit takes a share and gives nothing (gpt-oss) |
# | keys and values | K heads of each | one short latent for all heads (DeepSeek, GLM 4.7 Flash) |
# | mixing tokens | attention | three of four layers keep a memory of fixed size (Qwen 3.5) |
# | feed-forward | down(silu(gate) · up) | GELU (Gemma), no gate (Phi-2, StarCoder 2), a few of many experts for each token (Mixtral, Qwen 3 MoE, GLM 4.5) |
# | constants | none | factors on embeddings, branches, scores and logits (Gemma, Granite, MiniCPM), capped logits (Gemma 2) |
#
# ## When you get an error
#
# * `ValueError: operands could not be broadcast together`: print the shapes. Usually a missing `keepdims=True`, or
#   heads and tokens in the wrong order.
# * `matmul: Input operand 1 has a mismatch`: a matrix is (outputs, inputs) in the file: use `.T`.
# * *your function calls `rope`, which is still an empty stub*: exercise 5 uses exercises 1 to 4.
# * `nan` in the result: softmax of a row that is masked everywhere. Does the mask allow the diagonal?
