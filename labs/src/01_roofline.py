# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 01 · Your machine's roofline
#
# How fast *can* a model run here? Not "how fast does it run", which is easy to time, but the bound that no program on
# this machine can exceed. The bound needs two measurements and one line of arithmetic. It holds for every model and
# every engine. It shows whether a published number is possible on this machine, and how much a faster program could
# gain.
#
# | | |
# |---|---|
# | **Afterwards you can** | measure your machine's memory bandwidth and arithmetic, draw its roofline, and bound the tokens a second of any model before you download it |
# | **Time** | 50 minutes |
# | **You should know** | lab 00 (timing); what a matrix product is |
# | **Runs on** | any laptop, a minute of computing at most, no network; 3 GB of free memory and disk for one measurement, otherwise the lab skips it |
# | **In llama.cpp** | `llama-bench -m model.gguf -p 512 -n 128`: *pp512* and *tg128* are the two sides of this lab's figure |

# %%
import logging

from minillama.gguf import TensorType
from minillama.lab import Dropdown, IntSlider, Panel, Prediction, Slider, collect, running, show
from minillama.lab.checks import lab01 as check
from minillama.lab.grading.check import attempt
from minillama.lab.grading.report_html import save_figure
from minillama.lab.lab_record import measurement, roof_share
from minillama.lab.own_model import model_file, model_name
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.roofline_plots import (
    Dot,
    bits_per_weight,
    measure_own_roofline,
    measure_stream,
    model_dot,
    product_dot,
    random_model,
    record_dot,
    recorded_dots,
    roofline,
    sweep_rows,
    trial_speed,
)
from minillama.measure.limits.roofline import model_work
from minillama.measure.trial import Trial

logging.getLogger("minillama").setLevel(logging.ERROR)
MODEL = None  # or the path of your own GGUF file
file = model_file(MODEL)  # None: the storyteller

# %% [markdown]
# ## 1. Predict first
#
# Two models, both stored in 8 bits a weight (Q8_0): a file of 100 MB and one of 1 GB, the size of Llama 3.2 1B. How
# many tokens a second will they generate on *this* machine? A guess is enough. You will know more in half an hour, and
# the report at the end of the course shows your prediction.

# %%
small = Prediction(
    "01",
    "100 MB model, decoding",
    "A model of 100 MB: how many tokens a second does it write here?",
    "tokens/s",
)
small.ask()

# %%
large = Prediction(
    "01",
    "1 GB model, decoding",
    "A model of 1 GB: how many tokens a second does it write here?",
    "tokens/s",
)
large.ask()

# %% tags=["solution"]
small.record(50)  # "chat feels like reading speed, ten words a second; this one is small"
large.record(20)

# %% [markdown]
# ## 2. The slope: memory bandwidth
#
# Long arrays, short loops: copy, scale, add. They contain almost no arithmetic, so their time is the time to read and
# write memory. The classic benchmark is McCalpin's *STREAM*. These are numpy's times for 16 million numbers of 8 bytes,
# on one core:

# %%
with running("five loops", seconds=2):
    loops = measure_stream()
for loop in loops:
    print(f"{loop.name:18} {loop.formula:36} {1e3 * loop.seconds:7.2f} ms")

# %% [markdown]
# ### Exercise 1: what counts as traffic
# Turn seconds into **bytes a second**. A loop over `elements` numbers of `itemsize` bytes reads `arrays_read` arrays
# and writes `arrays_written`. Reads count, writes count, and an array that two loops use counts twice.


# %% tags=["exercise"]
def bandwidth(
    elements: int, itemsize: int, arrays_read: int, arrays_written: int, seconds: float
) -> float:
    """Bytes a second that a loop moved."""
    raise NotImplementedError


# %% tags=["solution"]
def bandwidth(
    elements: int, itemsize: int, arrays_read: int, arrays_written: int, seconds: float
) -> float:
    """Bytes a second that a loop moved."""
    return elements * itemsize * (arrays_read + arrays_written) / seconds


# %% [markdown] tags=["hint"]
# Bytes of one array: `elements * itemsize`. The number of moved arrays is the sum of read and written ones. Divide
# bytes by seconds, without factors of 1e9.

# %% tags=["check"]
check.bandwidth(bandwidth)

# %%
rates = {}
for loop in loops:
    got = attempt(
        bandwidth, loop.elements, loop.itemsize, loop.arrays_read, loop.arrays_written, loop.seconds
    )
    if isinstance(got, int | float):
        rates[loop.name] = got / 1e9
    else:
        print(f"{loop.name}: {got}")
if rates:
    show(bars(list(rates), list(rates.values()), "What one core moves", "GB/s"))

# %% [markdown]
# The memory is the same, but the loops differ. There are two reasons:
#
# * **Writing costs more than it seems.** A core fetches a cache line before it changes a part of it. So a plain *copy*
#   moves three arrays and not two (*write-allocate*), unless the program uses non-temporal stores. STREAM's rules still
#   count two: the transfers that the *program* requests.
# * **Two loops are not one.** numpy's triad writes `c` and reads it again. Fused into one loop it would move three
#   arrays and not five. This is the purpose of XLA's fusion, and of a kernel that multiplies quantised weights without
#   storing the unpacked ones.
#
# During decode, a model only *reads* its weights. So *sum* is the relevant loop, on all cores that this process may
# use.
#
# ## 3. Operations per byte
#
# A product computes something with each byte it reads. The **arithmetic intensity** is the number of operations per
# byte. It is the only property of a program that the roofline needs.
#
# ### Exercise 2: the intensity of a product
# `x [rows, inner] @ w [inner, columns]`. Operations: each of the rows × columns results takes `inner` multiplications
# and as many additions. Bytes: `w` with `weight_bits` **bits** a weight, `x` and the result as float32. Each is moved
# once.


# %% tags=["exercise"]
def intensity(rows: int, inner: int, columns: int, weight_bits: float) -> float:
    """Operations per byte of x [rows, inner] @ w [inner, columns]."""
    raise NotImplementedError


# %% tags=["solution"]
def intensity(rows: int, inner: int, columns: int, weight_bits: float) -> float:
    """Operations per byte of x [rows, inner] @ w [inner, columns]."""
    moved = inner * columns * weight_bits / 8 + 4 * (rows * inner + rows * columns)
    return 2 * rows * inner * columns / moved


# %% [markdown] tags=["hint"]
# Numerator: `2 * rows * inner * columns`. Denominator: `inner * columns * weight_bits / 8` bytes of weights, plus 4
# bytes for each of the `rows * inner` input numbers and the `rows * columns` output numbers.

# %% tags=["check"]
check.intensity(intensity)

# %% tags=["check-output"]
for name, kind in (("F32", TensorType.F32), ("Q8_0", TensorType.Q8_0), ("Q4_0", TensorType.Q4_0)):
    for rows in (1, 16, 512):
        got = attempt(intensity, rows, 4096, 4096, bits_per_weight(kind))
        text = f"{got:7.1f} operations per byte" if isinstance(got, float) else got
        print(f"{name:4} ({bits_per_weight(kind):4.1f} bits), {rows:3} rows: {text}")

# %% [markdown]
# One row is decode: a vector times a matrix. 512 rows are a prompt. The matrix and its bytes are the same, but the
# intensity differs by a factor of hundreds. Quantising raises it too: fewer bytes, the same operations.
#
# ## 4. The two roofs
#
# Two limits hold for a program with `intensity` operations a byte: the memory has a maximum of bytes a second, and the
# cores have a maximum of operations a second. In the figure these limits are two roofs, one sloped, one flat.
#
# ### Exercise 3: what is attainable
# `bandwidth` in bytes a second, `flops` in operations a second.


# %% tags=["exercise"]
def attainable(intensity: float, bandwidth: float, flops: float) -> float:
    """The most operations a second of a program with this intensity."""
    raise NotImplementedError


# %% tags=["solution"]
def attainable(intensity: float, bandwidth: float, flops: float) -> float:
    """The most operations a second of a program with this intensity."""
    return min(flops, bandwidth * intensity)


# %% [markdown] tags=["hint"]
# bytes/s × operations/byte = operations/s. The lower roof is the limit.

# %% tags=["check"]
check.attainable(attainable)

# %% [markdown]
# Now measure your own: all threads read a large buffer, and a product of 512 rows with weights in Q8_0, as in a prompt.
#
# A *measured* roof is the best that some program got. One that keeps more reads under way gets more bytes a second, and
# then it is above that roof. So the memory is read in two ways here, as plain sums and as a matrix-vector product of
# decoding, and the faster one counts.

# %%
with running("memory and arithmetic", seconds=3):
    roof = measure_own_roofline()
measurement("01", "memory bandwidth", roof.bandwidth / 1e9, "GB/s")
measurement("01", "arithmetic", roof.flops / 1e9, "billions of operations/s")
measurement("01", "ridge", roof.ridge, "operations/byte")
print(f"{roof.threads} threads read {roof.bandwidth / 1e9:.1f} GB/s, ", end="")
print(
    f"and do {roof.flops / 1e9:.0f} billion operations/s; the roofs meet at {roof.ridge:.1f} "
    "operations a byte"
)
for place in (0.25, 2, 1000):
    got = attempt(attainable, place, roof.bandwidth, roof.flops)
    text = f"{got / 1e9:.3g} billions a second" if isinstance(got, float) else got
    print(f"attainable at {place:4} operations a byte: {text}")

# %% [markdown]
# Does a real product behave like this? Take a matrix of 8192 × 8192 weights, 71 MB, and an increasing number of rows.
# This is the way from decode to prefill. The curve should follow the slope and then the flat roof:

# %%
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
sweep = dict(collect(sweep_rows(ROWS), "products", len(ROWS)))
measurement("01", "128 rows over 1 row, operations/s", sweep[128].flops / sweep[1].flops, "times")
climb = roofline(
    roof, {}, "A product with more and more rows", curves={"1 to 128 rows": list(sweep.values())}
)
show(save_figure("01", "climb", climb))

# %% [markdown]
# It never reaches the corner: near the ridge both memory and arithmetic are almost fully used, and they disturb each
# other. A roofline is a bound, not a forecast. If a dot is *above* the slope, its bytes came from a cache and not from
# memory; section 6 has such a dot.
#
# ## 5. Tokens a second
#
# ### Exercise 4: the bound of a model
# To generate one token, a model reads all its `weights`, `weight_bits` bits each, and `cache_bytes` of keys and values.
# It multiplies and adds once with each weight. Both roofs are limits. What is the maximum number of tokens a second?


# %% tags=["exercise"]
def bound(
    weights: float, weight_bits: float, cache_bytes: float, bandwidth: float, flops: float
) -> float:
    """The most tokens a second that a model writes."""
    raise NotImplementedError


# %% tags=["solution"]
def bound(
    weights: float, weight_bits: float, cache_bytes: float, bandwidth: float, flops: float
) -> float:
    """The most tokens a second that a model writes."""
    return min(bandwidth / (weights * weight_bits / 8 + cache_bytes), flops / (2 * weights))


# %% [markdown] tags=["hint"]
# Memory alone allows `bandwidth / bytes of a token`. Arithmetic alone allows `flops / operations of a token`, two for
# each weight. The smaller one is the bound.

# %% tags=["check"]
check.bound(bound)

# %% [markdown]
# Now the two models of section 1, with random weights: their text is nonsense, but their speed is real. First the 100
# MB model, with a decode of 16 tokens and a prompt of 128:

# %%
DECODE, PROMPT = Trial(0, 16), Trial(128, 0)
with random_model(100) as path:
    if path is None:
        print("not enough free memory or disk for a model of 100 MB")
    else:
        with running("the model of 100 MB", seconds=8):
            rates = {trial.name: trial_speed(path, trial) for trial in (DECODE, PROMPT)}
        record_dot("01", "100 MB, decode", model_dot(path, DECODE, rates[DECODE.name]))
        record_dot("01", "100 MB, prompt", model_dot(path, PROMPT, rates[PROMPT.name]))
        says = roof.tokens_per_second(model_work(path, DECODE))
        roof_share("01", "100 MB model, share of its roof", rates[DECODE.name] / says)
        show(small.compare(rates[DECODE.name], model=says))

# %% [markdown]
# Then the 1 GB model, with only four tokens:

# %%
FEW = Trial(0, 4)
with running("the model of 1 GB is written, loaded and measured", seconds=15), random_model(1000) as path:
    if path is None:
        print("not enough free memory or disk for a model of 1 GB: your bound has to do")
    else:
        rate = trial_speed(path, FEW)
        record_dot("01", "1 GB, decode", model_dot(path, FEW, rate))
        says = roof.tokens_per_second(model_work(path, FEW))
        roof_share("01", "1 GB model, share of its roof", rate / says)
        show(large.compare(rate, model=says))

# %% [markdown]
# *Model says* is the roofline: bandwidth divided by bytes. For real models a good engine reaches 60 to 90 % of it.
# (Slightly more than 100 % means that other programs disturbed the two measurements differently, or that a large cache
# holds a part of the small model.) Ten times the bytes give a tenth of the tokens. No flag and no programming language
# changes that; fewer *bytes* do (lab 07).
#
# ## 6. The roofline of this machine
#
# Every dot is a measurement of this machine. Later labs add their dots through the same records, and the report of lab
# 12 draws them all.

# %%
with running("the model, decode and prompt", steps=2) as step:
    for name, trial in (("decode", Trial(0, 64)), ("prompt", Trial(128, 0))):
        dot = model_dot(file, trial, trial_speed(file, trial))
        record_dot("01", f"{model_name(MODEL)}, {name}", dot)
        step()
show(roofline(roof, recorded_dots(), "My machine's roofline"))

# %% [markdown]
# * **Decode** is at about 2 operations a byte, for any size of model: at the far left, under the slope.
# * **Prompts** are at the right, under the flat roof. They do several times more operations a second, because their
#   tokens share the weights that they read.
# * **The storyteller** has 2.4 MB and fits in the processor's cache, so memory is no bound for it, and its dot may be
#   above the slope. But it does not reach the flat roof: its products are so small that starting each one takes most of
#   the time. The roofline does not include such overheads, and they dominate small models.
#
# ### Exercise 5: which side of the ridge?
# A pass over several tokens reads the weights once for all of them. Count weights only: `weight_bits` bits each, two
# operations for each token. What is the **smallest number of tokens** in a pass that makes arithmetic the limit, and no
# longer memory? (Return an `int`. The ridge itself counts as arithmetic.)


# %% tags=["exercise"]
def ridge_rows(weight_bits: float, bandwidth: float, flops: float) -> int:
    """The fewest tokens of a pass that arithmetic bounds."""
    raise NotImplementedError


# %% tags=["solution"]
import math


def ridge_rows(weight_bits: float, bandwidth: float, flops: float) -> int:
    """The fewest tokens of a pass that arithmetic bounds."""
    return math.ceil(flops / bandwidth * weight_bits / 8 / 2)


# %% [markdown] tags=["hint"]
# With T tokens the intensity is `2 * T / (weight_bits / 8)`. Set it equal to the ridge, `flops / bandwidth`, solve for
# T, round up.

# %% tags=["check"]
check.ridge_rows(ridge_rows)

# %% tags=["check-output"]
machines = (
    ("laptop, 2 channels of DDR4", 16.0, 40e9, 300e9),
    ("the same, weights in Q4_0", 4.5, 40e9, 300e9),
    ("server, 8 channels of DDR5", 16.0, 300e9, 8e12),
    ("data sheet of an H100 (SXM), bfloat16", 16.0, 3.35e12, 989e12),
)
for name, kind, bytes_per_second, operations in machines:
    print(f"{name:38} {attempt(ridge_rows, kind, bytes_per_second, operations)} tokens")

# %%
print(
    "this machine, weights in Q8_0:", attempt(ridge_rows, 8.5, roof.bandwidth, roof.flops), "tokens"
)

# %% [markdown]
# One chat decodes one token at a time, so on a data-centre GPU about 99 % of the arithmetic is idle. Therefore servers
# put the requests of many users into one pass (*batching*), and a laptop is a reasonable machine for a single chat.
#
# ## 7. Try it yourself
#
# The red ring is a model that you do not have. The controls set its billions of weights, bits per weight, tokens of
# context, and the size of one position in its cache (32 KiB in Llama 3.2 1B, 128 in Llama 3.1 8B, 512 in Llama 2 7B).
# **Start** measures products of the chosen type with increasing rows; every curve stays. **Stop** ends the measurement
# after the present point.

# %%
curves = {}
WEIGHT_TYPES = {
    "Q8_0": TensorType.Q8_0,
    "Q4_0": TensorType.Q4_0,
    "F16": TensorType.F16,
    "float32 by XLA": None,
}


def predicted(settings):
    """Dot of one token of the model, its bound in tokens/s, and its bytes."""
    weights, context = 1e9 * settings["weights"], 1024 * settings["context"]
    moved = weights * settings["bits"] / 8 + context * settings["position"] * 1024
    place = 2 * weights / moved
    return Dot(place, roof.attainable(place)), roof.attainable(place) / (2 * weights), moved


def draw(settings):
    """The roofline with the measurements, and the model of the sliders."""
    dot, rate, moved = predicted(settings)
    title = f"At most {rate:.1f} tokens/s: {moved / 1e9:.2f} GB for each token"
    return roofline(roof, recorded_dots(), title, curves=curves, predicted={"your model": dot})


def measure(settings):
    """Measure one number of rows after another; yield the figure with one more point."""
    name = settings["type"]
    curves[name] = []
    for rows in ROWS:
        curves[name].append(product_dot(rows, kind=WEIGHT_TYPES[name], repetitions=2))
        yield f"{name}, {rows} rows: {curves[name][-1].flops / 1e9:,.1f} billion operations/s\n"
        yield draw(settings)


# %% tags=["panel"]
panel = Panel(
    [
        Slider("weights", "billions of weights", 0.1, 70.0, 0.1, 8.0, "of the whole model"),
        Slider("bits", "bits of a weight", 1.5, 32.0, 0.5, 4.5, "4.5 is Q4_0, 8.5 Q8_0, 16 F16"),
        IntSlider("context", "context, in 1024s", 0, 128, 8, "tokens in the cache"),
        IntSlider("position", "KiB of a position", 0, 512, 128, "keys and values of one token"),
        Dropdown("type", "type of the product", tuple(WEIGHT_TYPES), "Q8_0", "what Start measures"),
    ],
    draw,
    measure,
).show()

# %% [markdown]
# The same without sliders:

# %%
SETTINGS = {"weights": 8.0, "bits": 4.5, "context": 8, "position": 128, "type": "Q4_0"}
show(collect(measure(SETTINGS), "products", len(ROWS))[-1])

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * Two numbers describe a machine: bytes a second and operations a second. Their quotient is the **ridge**: above this
#   intensity a program is bound by arithmetic.
# * **Decoding**: about two operations for each byte. Tokens a second ≤ bandwidth / (bytes of weights + bytes of cache).
#   Remember this formula.
# * **Prompts and batches** share the weights and are bound by arithmetic.
# * Report the *share of the roof* that a program reaches. This number is meaningful on other machines too.
# * A dot above the roof has a simple cause: the bytes came from a cache, the count is wrong, or the roof was measured too
#   low, by a slower way to read or next to other programs.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | decoding, prompt | `llama-bench -m M -n 128`, `-p 512` | `minillama bench -m M -n 128`, `-p 512`, with bytes and operations of each token |
# | share of the roof | none | `measure_roofline().predict_decode("M")` |
# | random weights in a real shape | none | `minillama synth llama-3.2-1b` |
# | several users in one pass | `llama-batched-bench`, `llama-server -np` | a pass with several rows, lab 05 |
#
# ## When you get an error
#
# * `not enough free memory or disk`: this is no error. The lab skips the 1 GB model and continues.
# * The kernel dies at section 2: 400 MB of arrays were too much. `measure_stream(4 << 20)` uses a quarter.
# * Decoding is *far* above its roof: another program ran while the roof was measured. Run the cell with
#   `measure_own_roofline()` again, then the cells below it.
# * All dots are low: a laptop on battery, a hub with a share of a core, or a container with fewer cores than it shows.
#   Run the doctor of lab 00.
