# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 07 · Quantise: bits against quality against speed
#
# Decode waits for the weights from memory (lab 05). With fewer bits per weight it is faster, and a model that was too
# large fits. The price: every weight is rounded. In this lab you convert a published model to a GGUF file, round weights
# yourself, see why GGUF's formats are made of *blocks*, and measure size, quality and speed of each type.
#
# | | |
# |---|---|
# | **Afterwards you can** | convert a model, quantise with a bound on the error, explain the bits of a format, predict a file's size, and choose a type for a reason |
# | **Time** | 60 minutes |
# | **You should know** | lab 02 (blocks), lab 05 (why bytes are time), lab 06 (perplexity, KL divergence, pairs) |
# | **Runs on** | any laptop, a minute of computing at most, no network; 500 MB of disk for temporary files |
# | **In llama.cpp** | `convert_hf_to_gguf.py DIR`, `llama-quantize IN OUT Q4_K_M`, `llama-imatrix`, `--imatrix`, `--tensor-type`, `--pure` |

# %%
import json
from collections import Counter

import numpy as np

from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.quantise_plan import plan_file
from minillama.gguf.reader import dequantize, open_gguf
from minillama.lab import Dropdown, Panel, Prediction, collect, running, show
from minillama.lab.checks import lab07 as check
from minillama.lab.checks.lab07 import BITS, weights_by_type
from minillama.lab.experiments.counted_passes import decode_speed_ratio
from minillama.lab.experiments.hugging_face_folder import hugging_face_name, storyteller_folder
from minillama.lab.experiments.quantisation_tradeoff import (
    CTX,
    base_logits,
    importance_matrix,
    logits_of,
    measure_type,
    quantised_by_importance,
    scored_ids,
)
from minillama.lab.experiments.quantised_storytellers import distance, load_quantised
from minillama.lab.experiments.shown_command import show_command
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import lab_model, model_name, scaled
from minillama.lab.plots.lab_plots import bars, lines
from minillama.lab.plots.measurement_plots import pareto
from minillama.lab.widgets.figure import text_table
from minillama.measure.quality.perplexity import running_perplexity

MODEL = None  # or the path of your own GGUF file

# %% [markdown]
# ## 1. From a Hugging Face folder to a GGUF file
#
# Models are published as folders: `config.json` has the sizes, `model.safetensors` the weights, `tokenizer.json` the
# words. Here is the storyteller as such a folder, made on this machine. (This section stays with the storyteller, because a
# GGUF file is converted already.)

# %% tags=["check-output"]
folder = storyteller_folder()
for path in sorted(folder.iterdir()):
    print(f"{path.name:22} {path.stat().st_size:9,} bytes")
config = json.loads((folder / "config.json").read_text())
print(json.dumps(config, indent=1))

# %% [markdown]
# A GGUF file holds all of this in one. The weights keep their values: with `--outtype f16` each number of a matrix has
# 16 bits, and a norm's have 32. How large will the file be? `config.json` is all you need: a table of `vocab_size` rows
# (also the head, because `tie_word_embeddings` is true), and in each layer the matrices of lab 03.

# %%
converted_size = Prediction(
    "07",
    "the storyteller as F16",
    "How large is the GGUF file of this model with 16 bits a weight?",
    "MB",
)
converted_size.ask()

# %% tags=["solution"]
converted_size.record(
    3.4
)  # the table and the feed-forward matrices: 2 * (2048 * 256 + 3 * 3 * 256 * 512) bytes

# %% tags=["check-output"]
for kind in ("f16", "q8_0"):
    words = ["--outtype", kind, "-o", f"storyteller-{kind}.gguf", "--force"]
    show_command(folder.parent, "convert", folder.name, *words)

# %%
V, L = config["vocab_size"], config["num_hidden_layers"]
D, F = config["hidden_size"], config["intermediate_size"]
N, K, H = (config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
attention = D * N * H + 2 * D * K * H + N * H * D  # q, k and v, output
matrices = V * D + L * (attention + 3 * D * F)
norms = (2 * L + 1) * D
by_formula = {"f16": 2 * matrices + 4 * norms, "q8_0": matrices * 34 // 32 + 4 * norms}
size = (folder.parent / "storyteller-f16.gguf").stat().st_size
show(converted_size.compare(size / 1e6, model=by_formula["f16"] / 1e6))

# %% [markdown]
# *Model says* is the formula in the cell. It gives the exact bytes of the tensors; the rest of the file is the metadata,
# mostly the vocabulary:

# %% tags=["check-output"]
files = {kind: open_gguf(folder.parent / f"storyteller-{kind}.gguf") for kind in by_formula}
for kind, file in files.items():
    size = file.path.stat().st_size
    print(
        f"{kind:4}: tensors {file.nbytes:9,} bytes, by formula {by_formula[kind]:9,}; file "
        f"{size:9,}"
    )

# %% [markdown]
# What does a converter do? It copies the sizes and the vocabulary into metadata (`llama.block_count` is
# `num_hidden_layers`), and gives the tensors GGUF's names:

# %% tags=["check-output"]
show_command(folder.parent, "inspect", "storyteller-f16.gguf", "--metadata")

# %% tags=["check-output"]
rows = []
for name, tensor in files["f16"].tensors.items():
    if not name.startswith(("blk.1", "blk.2")):
        names = [each.removesuffix(".weight") for each in (hugging_face_name(name), name)]
        shape = " x ".join(map(str, tensor.shape))
        rows.append(
            (*names, shape, f"{tensor.nbytes:,}", f"{files['q8_0'].tensors[name].nbytes:,}")
        )
print(text_table(("in the folder (.weight)", "in the file", "shape", "F16", "Q8_0"), rows))

# %% [markdown]
# One thing more: in the files of the Llama family the rows of `attn_q` and `attn_k` are in another order. Transformers
# rotates the two *halves* of a head, llama.cpp *neighbouring* rows (lab 03, RoPE), so a converter puts the rows next to
# each other. A converter without this step makes a file that loads and writes nonsense. With it, the storyteller's own
# file and the converted one have the same weights, bit by bit:

# %% tags=["check-output"]
converted, storyteller = files["f16"].tensors, load_quantised("F16")
same = [
    np.array_equal(tensor.data, converted[name].data)
    for name, tensor in storyteller.file.tensors.items()
]
print(f"{sum(same)} of {len(same)} tensors are equal")

# %% [markdown]
# From here on, one of its matrices:

# %% tags=["check-output"]
llm = load_quantised("F16", MODEL)
weights = dequantize(llm.file.tensors["blk.0.ffn_down.weight"])[:512]
print(f"{weights.shape[0]} rows of {weights.shape[1]} real weights; the first: {weights[0, :4]}")

# %% [markdown]
# ## 2. Round to a grid
#
# The simplest quantisation: whole numbers from −127 to 127 and one step d, so that x ≈ d · q. *Symmetric* means that
# zero stays zero.
#
# ### Exercise 1: int8, a scale a row
# For each row d = max|x| / 127 and q = x / d rounded to the nearest. Return the codes (`int8`, in the shape of x) and
# the scales (one per row). Rounding to the nearest has an error of at most half a step: the check tests |x − d q| ≤ d /
# 2 on hidden matrices. One of them has a row of zeros.


# %% tags=["exercise"]
def int8_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [R, C] and scales [R]."""
    raise NotImplementedError


# %% tags=["solution"]
def int8_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [R, C] and scales [R]."""
    d = np.abs(x).max(axis=1) / 127
    codes = np.rint(x / np.where(d > 0, d, 1)[:, None])
    return codes.astype(np.int8), d


# %% [markdown] tags=["hint"]
# `np.abs(x).max(axis=1) / 127`, then `np.rint(x / d[:, None]).astype(np.int8)`. Where d is 0 divide by 1 instead:
# `np.where(d > 0, d, 1)`.

# %% tags=["check"]
check.int8_rows(int8_rows)


# %%
def bound(x):
    """Largest error relative to d / 2, and RMS error relative to the weights' RMS."""
    codes, d = int8_rows(x)
    lost = x - d[:, None] * codes
    return float(np.max(np.abs(lost) / d[:, None]) / 0.5), float(
        np.sqrt(np.mean(lost**2) / np.mean(x**2))
    )


got = attempt(bound, weights)
print(
    "largest error {:.3f} of d / 2, mean error {:.2%} of the weights".format(*got)
    if isinstance(got, tuple)
    else got
)

# %% [markdown]
# Eight bits lose less than one percent. With four bits the grid has 15 steps instead of 255, and each row's largest
# weight sets their size.
#
# ### Exercise 2: a scale a block
# So let fewer weights share a scale. `round_trip` quantises with a scale for every `size` neighbours of a row (`size`
# divides the row) and the codes −(2^(bits − 1) − 1) to 2^(bits − 1) − 1. It returns the dequantised values d · q in the
# shape of x.


# %% tags=["exercise"]
def round_trip(x: np.ndarray, size: int, bits: int) -> np.ndarray:
    """x after quantising with a scale for every `size` neighbours, and back."""
    raise NotImplementedError


# %% tags=["solution"]
def round_trip(x: np.ndarray, size: int, bits: int) -> np.ndarray:
    """x after quantising with a scale for every `size` neighbours, and back."""
    blocks = x.reshape(-1, size)
    d = np.abs(blocks).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    codes = np.rint(blocks / np.where(d > 0, d, 1))
    return (d * codes).reshape(x.shape)


# %% [markdown] tags=["hint"]
# `x.reshape(-1, size)` has one block per row. Then use exercise 1 with `2 ** (bits - 1) - 1` in place of 127, and
# `.reshape(x.shape)` at the end.

# %% tags=["check"]
check.round_trip(round_trip)

# %%
blocks = Prediction(
    "07",
    "error, scale a row over scale a block",
    "4 bits: how many times larger is the mean error with one scale for a row of 512 than with "
    "one for each 32 of them?",
    "times",
)
blocks.ask()

# %% tags=["solution"]
blocks.record(4)  # sixteen times as many scales, so a quarter of the error?

# %%
SIZES = (512, 256, 128, 64, 32, 16)
spiked = weights.copy()
spiked[:, 7] *= 20  # one column of large weights, as large models have them


def error(x, size):
    """RMS error of 4 bits in percent of the weights' RMS, without the large column."""
    lost, kept = (np.delete(each, 7, axis=1) for each in (x - round_trip(x, size, 4), x))
    return 100 * float(np.sqrt(np.mean(lost**2) / np.mean(kept**2)))


losses = {
    "real weights": [attempt(error, weights, size) for size in SIZES],
    "one large column": [attempt(error, spiked, size) for size in SIZES],
}
if all(isinstance(value, float) for values in losses.values() for value in values):
    show(blocks.compare(losses["real weights"][0] / losses["real weights"][4], model=1.0))
    show(
        lines(
            losses,
            [f"{size}, {4 + 16 / size:.4g} bits" for size in SIZES],
            "4 bits: what the other weights lose",
            "weights that share a scale, and bits a weight with 16 bits a scale",
            "error in percent",
        )
    )
else:
    print(losses["real weights"][0])

# %% [markdown]
# On these regular weights a block of 32 instead of a row of 512 saves a quarter of the error, for half a bit. With
# **one large column** the block size is decisive: the outlier makes the steps coarse for its whole row, or only for its
# block. Large models have such columns. Therefore all of GGUF's types use blocks.
#
# ### Exercise 3: bits a weight
# Scales need bits too. The simple types have blocks of 32 with a scale of 16 bits. The k-quants have *two* levels: in a
# super-block of 256, each block has a small scale (and minimum) of a few bits, which is itself a code, and the
# super-block has 16-bit scales for these codes. Q4_K: codes of 4 bits, 12 bits (6 + 6) for each block of 32, 32 bits
# (16 + 16) for the super-block of 256.


# %% tags=["exercise"]
def bits_per_weight(
    code: int, block: int, scales: int, super_block: int, super_scales: int
) -> float:
    """Bits per weight: `code` bits, `scales` bits per `block`, `super_scales` bits per `super_block`."""
    raise NotImplementedError


# %% tags=["solution"]
def bits_per_weight(
    code: int, block: int, scales: int, super_block: int, super_scales: int
) -> float:
    """Bits per weight: `code` bits, `scales` bits per `block`, `super_scales` bits per `super_block`."""
    return code + scales / block + super_scales / super_block


# %% [markdown] tags=["hint"]
# Each weight needs its own code, a share of its block's scales (1 / `block`), and a share of the super-block's scales
# (1 / `super_block`).

# %% tags=["check"]
check.bits_per_weight(bits_per_weight)

# %% tags=["check-output"]
FORMATS = {
    "Q8_0": (8, 32, 16, 32, 0),
    "Q4_0": (4, 32, 16, 32, 0),
    "Q4_K": (4, 32, 12, 256, 32),
    "Q6_K": (6, 16, 8, 256, 16),
    "Q2_K": (2, 16, 8, 256, 32),
}
for name, numbers in FORMATS.items():
    print(f"{name}: {BITS[name]:.4f} bits in the file; you say", attempt(bits_per_weight, *numbers))

# %% [markdown]
# Q4_K needs as many bits as Q4_0, but each block has a minimum and a scale, and `llama-quantize` searches for the pair
# with the least error.
#
# ## 3. A file is a mix
#
# `llama-quantize IN OUT Q4_K_M` does not store everything as Q4_K: norms stay F32, and the most sensitive tensors get
# more bits. The plan for the model:

# %% tags=["check-output"]
for name in ("F16", "Q8_0", "Q4_0", "Q4_K_M", "Q2_K"):
    plan = plan_file(llm.file, Mix.named(name))
    kinds = Counter()
    for step in plan.steps:
        kinds[step.target.type.name] += step.source.size
    shares = ", ".join(
        f"{kind} {count / plan.parameters:.1%}" for kind, count in kinds.most_common()
    )
    print(
        f"{name:7} {8 * plan.bytes_after / plan.parameters:5.2f} bits a weight, "
        f"{plan.fallbacks} fallbacks: {shares}"
    )

# %% [markdown]
# *Fallbacks* are tensors whose rows are not whole blocks; they get another type. A super-block has 256 weights, and the
# storyteller's rows have 256 and 512, so they fit. Qwen2.5 0.5B has rows of 896, and most tensors of its "Q4_K_M" file
# are not Q4_K. A quarter of the storyteller is its vocabulary, stored in 6 bits: in a small model Q4_K_M has 5 bits per
# weight.
#
# ### Exercise 4: the size of a model
# `weights` is the number of weights of each type, `bits` the bits per weight of each type. Return GB (10^9 bytes).

# %%
size_7b = Prediction(
    "07",
    "Llama 2 7B in Q4_K_M",
    "Llama 2 7B has 6.74 billion weights. How large is it in Q4_K_M?",
    "GB",
)
size_7b.ask()

# %% tags=["solution"]
size_7b.record(3.4)  # 6.74 billion times half a byte


# %% tags=["exercise"]
def gigabytes(weights: dict[str, int], bits: dict[str, float]) -> float:
    """10^9 bytes of all weights."""
    raise NotImplementedError


# %% tags=["solution"]
def gigabytes(weights: dict[str, int], bits: dict[str, float]) -> float:
    """10^9 bytes of all weights."""
    return sum(count * bits[kind] for kind, count in weights.items()) / 8 / 1e9


# %% [markdown] tags=["hint"]
# Sum over the types: weights × bits of one. Eight bits to the byte, 10^9 bytes to the GB.

# %% tags=["check"]
check.gigabytes(gigabytes)

# %%
show(
    size_7b.compare(
        sum(count * BITS[kind] for kind, count in weights_by_type("llama-2-7b", "Q4_K_M").items())
        / 8e9,
        model=6.74 * 4.5 / 8,
    )
)

# %% tags=["check-output"]
for name in ("F16", "Q8_0", "Q4_K_M", "Q2_K"):
    print(
        f"Llama 2 7B in {name:6}: you say",
        attempt(lambda name=name: round(gigabytes(weights_by_type("llama-2-7b", name), BITS), 2)),
        "GB",
    )

# %% [markdown]
# ## 4. Faster?
#
# If decode only waits for bytes, a file of a quarter of the size is four times as fast. The storyteller is too small
# for this test (it fits in the processor's cache), so we measure a shape of 69 million random weights. Its text is
# nonsense, but its speed is real. F16 is 137 MB, Q4_0 39 MB. The two are measured interleaved (A B A B), because the
# machine may have other load.

# %%
faster = Prediction(
    "07",
    "tokens a second, Q4_0 over F16",
    "How many times faster does the large shape decode in Q4_0 than in F16?",
    "times",
)
faster.ask()

# %% tags=["solution"]
faster.record(3.5)  # as many times as it is smaller

# %%
with running("both types, three rounds", seconds=6):
    ratio = decode_speed_ratio("Q4_0", "F16")
show(faster.compare(ratio, model=137.4 / 38.8))

# %% [markdown]
# *Model says* is the ratio of the bytes. If your value is lower, unpacking the codes costs arithmetic: the machine no
# longer waits for bytes only. If it is higher, F16 waited for more than bytes.
#
# ## 5. Bits against quality against speed
#
# Now measure nine types: bytes and quality of the model (five of yours), quantised from its F16 file and evaluated on the
# held-out text, and the speed of the large shape in the same type. **Quality** is the KL divergence to F16 (lab 06: how
# much the model *changed*) or perplexity. The line joins the types that no other type beats in both directions: the
# *Pareto front*. For any other type there is a better choice. **Start** measures type by type, **Stop** ends after the
# present one; you can change the axes at any time.

# %%
TYPES = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
FEW = ("F16", "Q8_0", "Q4_K_M", "Q4_0", "Q2_K") if MODEL else ("F32", "F16", "Q8_0", "Q4_0", "Q4_K_M")
ACROSS = {
    "size": (f"megabytes of the {model_name(MODEL)}", lambda point: point.size / 1e6, False),
    "speed": (
        "speed of the large shape, F16 = 1 (further right is better)",
        lambda point: point.speed,
        True,
    ),
}
UP = {
    "KL divergence": ("KL divergence to F16, nats", lambda point: point.kld),
    "perplexity": ("perplexity of the held-out text", lambda point: point.ppl),
}
trades = {}


def draw(settings):
    """All types measured so far, without widgets: settings in, figure out."""
    (x, across, more), (y, up) = ACROSS[settings["x"]], UP[settings["y"]]
    points = {name: (across(point), up(point)) for name, point in trades.items()}
    return pareto(
        points,
        f"Size, speed and quality of each type: {settings['y']} by {settings['x']}",
        x,
        y,
        more=more,
    )


def measure(settings):
    """All types without widgets: settings in; a line and a figure per type out."""
    for name in FEW if settings["types"] == "five types" else TYPES:
        trades[name] = point = measure_type(name, MODEL)
        yield f"{name}: {point.size / 1e6:.2f} MB, perplexity {point.ppl:.1f}, KL {point.kld:.4f}, {point.speed:.2f} times F16's speed\n"
        yield draw(settings)


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown(
            "types", "types", ("five types", "nine types"), "nine types", "what Start measures"
        ),
        Dropdown("x", "to the right", tuple(ACROSS), "size", "the horizontal axis"),
        Dropdown("y", "upwards", tuple(UP), "KL divergence", "the vertical axis; lower is better"),
    ],
    draw,
    measure,
).show()

# %% [markdown]
# The same without buttons. On the command line: `minillama quantize IN OUT Q4_0`, then `minillama perplexity -m OUT -f
# TEXT -c 256 --kl-divergence-base base.kld --kl-divergence` and `minillama bench -m OUT -p 0 -n 16`, for each type.

# %%
SETTINGS = {"types": "five types" if MODEL else "nine types", "x": "size", "y": "KL divergence"}
*_, last = collect(measure(SETTINGS), "types", len(FEW if MODEL else TYPES))
show(last)
# %%
show(draw({**SETTINGS, "x": "speed"}))
rows = [
    (
        point.name,
        f"{point.bits:.2f}",
        f"{point.ppl:.1f}",
        f"{point.kld:.4f}",
        f"{point.same_top:.0%}",
        f"{point.speed:.2f}",
    )
    for point in trades.values()
]
print(
    text_table(
        ("type", "bits a weight", "perplexity", "KL to F16", "same first choice", "speed by F16's"),
        rows,
    )
)
for point in trades.values():
    measurement("07", f"KL divergence, {point.name}", point.kld, "nats")

# %% [markdown]
# * Down to about 6 bits almost nothing changes; then each further bit costs several times more than the previous one.
#   Q2_K is a different model.
# * **Smaller is not always faster.** Q2_K has the fewest bytes, but its codes need the most unpacking. Is it faster
#   than Q4_0 on your machine?
# * By **perplexity** the order is not clear: Q4_K_M may be below F16. Lab 06 explains why: on this text such
#   differences are noise. KL divergence has the right order.
# * F32 is twice the bytes of F16 and changes nothing: the original weights have 16 bits.
#
# ## 6. The importance matrix
#
# The rounding error of a weight does more harm if its activations are large. `llama-imatrix` runs a text through the
# model and adds up the squared inputs of each column of each matrix. `llama-quantize --imatrix` then weights the
# rounding errors by these sums. The file has the same size, format and decode speed: only the choice of scales and
# codes differs.
#
# ### Exercise 5: what importance changes
# The central step: for fixed codes q, which step d minimises Σ importance · (x − d q)²?


# %% tags=["exercise"]
def best_scale(x: np.ndarray, codes: np.ndarray, importance: np.ndarray) -> float:
    """The d of the least weighted squared error."""
    raise NotImplementedError


# %% tags=["solution"]
def best_scale(x: np.ndarray, codes: np.ndarray, importance: np.ndarray) -> float:
    """The d of the least weighted squared error."""
    return (importance * x * codes).sum() / (importance * codes**2).sum()


# %% [markdown] tags=["hint"]
# Set the derivative with respect to d to zero: $\sum w\,q\,(x - d\,q) = 0$. Solve for d.

# %% tags=["check"]
check.best_scale(best_scale)

# %% [markdown]
# With real files: the matrix comes from stories that the model generates, and the quality is measured on the
# held-out text. (Never use the same text for both.)

# %%
START = "Once upon a time"
COUNT = scaled(12, llm, tokens=200, seconds=40, least=2)
stories = []
with running("stories to calibrate with", steps=COUNT) as step:
    for seed in range(COUNT):
        options = {"n": 200, "temp": 0.8, "seed": seed, "ignore_eos": bool(MODEL)}
        stories.append(START + llm.generate(START, **options).text)
        step()
with running("importance matrix", seconds=30 if MODEL else 3):
    importance = importance_matrix(llm, "\n\n".join(stories))
base, compared = base_logits(MODEL), {}
for name in (name for name in ("Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K") if name in trades):
    with running("quantised, and compared", seconds=30 if MODEL else 3):
        weighed = lab_model(quantised_by_importance(name, importance, MODEL))
        compared[name] = trades[name].kld
        compared[f"{name} with importance"] = distance(base, logits_of(weighed, MODEL)).kld
        *_, weighted = running_perplexity(weighed, scored_ids(MODEL), ctx_size=CTX)
    print(f"{name}: perplexity {trades[name].ppl:.1f} without, {weighted.ppl:.1f} with importance")
show(
    bars(
        list(compared),
        list(compared.values()),
        "Effect of the importance matrix",
        "KL divergence to F16, nats",
    )
)

# %% [markdown]
# This costs no additional byte. The fewer the bits, the larger the effect.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * A converter changes names, the order of a few rows and types, not the model. A 16-bit file has two bytes a weight,
#   which `config.json` tells before you download it.
# * Rounding to the nearest has an error of at most d / 2, and d comes from the largest weight that shares it. Therefore
#   formats have blocks, and scales of scales.
# * A type's name is not its bits per weight: scales need bits, and a file is a mix. Multiply weights by bits, type by
#   type.
# * Fewer bytes save time as long as the processor waits for bytes. After that, unpacking dominates.
# * Judge by KL divergence or pair by pair, and choose from the Pareto front. Most people choose 4 to 5 bits, for this
#   reason.
# * The importance matrix changes the rounding. It costs no byte and no run time.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | convert a folder | `convert_hf_to_gguf.py DIR --outtype f16 --outfile OUT` | `minillama convert DIR --outtype f16 -o OUT` |
# | make a file | `llama-quantize IN OUT Q4_K_M` | `minillama quantize IN OUT Q4_K_M` |
# | only print the plan | `--dry-run` | the same |
# | all tensors in one type | `--pure` | the same |
# | importance | `llama-imatrix -m M -f TEXT`, `--imatrix` | `minillama imatrix -m M -f TEXT`, `--imatrix` |
# | quality | `llama-perplexity ... --kl-divergence` | `minillama perplexity ... --kl-divergence` |
# | speed | `llama-bench -m OUT -p 0 -n 16` | `minillama bench -m OUT -p 0 -n 16` |
#
# ## When you get an error
#
# * `... has no model.safetensors`: name the folder that has `config.json`, not a file or a folder above it.
# * `... is Q8_0 already, and rounding twice costs quality`: quantise the F16 or F32 file, not a quantised one.
# * `... takes ... GiB and ... has ... GiB free`: the largest temporary file has 275 MB; free some disk space, or set
#   `TMPDIR` to another folder.
# * `invalid value encountered in divide`: a block of zeros has the scale 0.
# * The panel says *compiling* at each type: each type is a separate program, compiled once.
