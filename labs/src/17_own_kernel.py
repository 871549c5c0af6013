# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 17 · A kernel of your own
#
# Most of the time of a model that writes is one operation: a matrix of 4-bit weights times a vector. Its bytes come from
# memory once and are used once, so it *should* run at the speed of memory. It does so only if the core spends few
# instructions on each weight. In this lab you count how few, write two kernels in the language in which minillama's own are
# written, read their machine code, and time them. Then you write the same product in Pallas.
#
# | | |
# |---|---|
# | **Afterwards you can** | say how many instructions a weight may cost, write a product of 4-bit weights in vector code, with floats and with integers, count it from the machine code, and write it as a Pallas kernel |
# | **Time** | 90 minutes |
# | **You should know** | lab 01 (roofline), lab 02 (blocks of Q4_0), lab 11 (ratios with intervals) |
# | **Runs on** | any laptop, half a minute of computing, 200 MB of memory, no network |
# | **In llama.cpp** | `ggml_vec_dot_q4_0_q8_0`, and the files of `ggml/src/ggml-cpu/arch/` |

# %%
import jax.numpy as jnp
import numpy as np

from minillama.kernels.cpu.simd import F32, I32, dot_narrow, fma
from minillama.lab import Dropdown, Panel, Prediction, collect, running, show
from minillama.lab.checks import lab17 as check
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_kernels.block_kernels import CODED, FLOAT, quantise_input
from minillama.lab.own_kernels.core_limits import limit_sentence, measure_core
from minillama.lab.own_kernels.kernel_figures import (
    KernelDot,
    core_roofline,
    count_table,
    instruction_bars,
)
from minillama.lab.own_kernels.package_kernels import (
    TYPES,
    available_isas,
    package_kernel,
    package_product,
)
from minillama.lab.own_kernels.pallas_products import pallas_product
from minillama.lab.own_kernels.timed_products import large_matrix, time_products
from minillama.lab.own_kernels.traced_kernels import (
    attempt_kernel,
    dequantised,
    isa_in_use,
    loaded_product,
    random_blocks,
)

isa = isa_in_use()
print(f"kernels are compiled for {isa.value}")

# %% [markdown]
# ## 1. What a weight may cost
#
# A block of Q4_0 (lab 02) has 18 bytes for 32 weights: a scale in float16, then 16 bytes with two codes each. The low four
# bits are the weights 0 to 15, the high four bits the weights 16 to 31. Weight = scale × (code − 8). That is 4.5 bits a weight,
# and two operations: one multiplication, one addition.
#
# ### Exercise 1: the instructions that memory allows
# One core reads `bandwidth` bytes a second from memory, has `frequency` cycles a second, and runs `per_cycle` instructions in
# each. A weight has `bits` bits. How many instructions can the core run in the time in which memory delivers one weight?


# %% tags=["exercise"]
def instructions_allowed(bandwidth, frequency, per_cycle, bits):
    """Instructions that the core runs while memory delivers one weight."""
    raise NotImplementedError


# %% tags=["solution"]
def instructions_allowed(bandwidth, frequency, per_cycle, bits):
    """Instructions that the core runs while memory delivers one weight."""
    seconds = bits / 8 / bandwidth
    return frequency * per_cycle * seconds


# %% [markdown] tags=["hint"]
# Seconds of one weight: its bytes, `bits / 8`, over the bandwidth. Instructions a second: `frequency * per_cycle`.

# %% tags=["check"]
check.instructions_allowed(instructions_allowed)

# %%
budget = Prediction(
    "17",
    "instructions a weight that memory allows",
    "Q4_0, one core, 2 instructions a cycle: how many instructions may a weight cost?",
    "instructions",
)
budget.ask()

# %% tags=["solution"]
budget.record(3)  # "load, unpack, multiply-add"

# %% [markdown]
# The bandwidth comes from a loop that reads as many bytes as the matrix of section 4, in one stream, and in four that are far
# apart. The better one counts. The frequency comes from a chain of additions, each of which waits for the one before: a link
# takes a cycle. Wide vector code seldom runs more than 2 instructions a cycle, so 2 is the assumption.

# %%
with running("one core", seconds=3):
    core = measure_core()
PER_CYCLE, BITS = 2, 4.5
allowed = attempt(instructions_allowed, core.bandwidth, core.frequency, PER_CYCLE, BITS)
print(f"one core: {core.one_stream / 1e9:.1f} GB/s in one stream, ", end="")
print(f"{core.bandwidth / 1e9:.1f} GB/s at best; {core.frequency / 1e9:.2f} GHz")
if isinstance(allowed, float):
    measurement("17", "instructions a weight that memory allows", allowed, "instructions")
    show(budget.compare(allowed))
else:
    print(allowed)

# %% [markdown]
# So a product with an instruction or two for *each* weight is out of the question. Vectors are the way: one instruction for
# 16 or 64 weights.
#
# ## 2. A language for vectors
#
# In `minillama/kernels/cpu/simd` a Python function traces into LLVM's code, as JAX traces a function into HLO. A value is a
# scalar or a vector of lanes, such as U8 × 16, and has no number yet. Operators work lane by lane; a Python number or a scalar
# fills all lanes:
#
# | | |
# |---|---|
# | `v & 15`, `v >> 4`, `v + w`, `v * 3` | lane by lane, in the element type of `v` |
# | `v.to(I32)`, `v.to(F32)` | convert each lane |
# | `v.permute([0, 0, 1, 1])` | choose lanes, in any order and number |
# | `fma(a, b, c)` | a × b + c, floats |
# | `dot(start, codes, x)` | U8 times I8: lane j is start[j] plus four products, codes[4j] x[4j] + ... + codes[4j+3] x[4j+3]; I32 |
# | `dot_narrow([codes, ...], [x, ...], 15, start)` | the sum of some `dot`s, for codes up to 15; AVX2 needs fewer instructions for it |
# | `const(0, I32, 16)` | a constant in all lanes |
#
# The loops over rows and blocks, the addresses and the final sum are written already
# (`minillama/lab/own_kernels/block_kernels.py`). You write the body: what happens with one step.
#
# ### Exercise 2: dequantise and multiply
# Your body gets one block and the 32 activations for it. Return the new `sums`.
#
# * `block.quants()` are its 16 bytes, U8 × 16; `block.scales()` is its scale, a scalar F32;
# * `x.low()` and `x.high()` are F32 × 16: the activations for the low and for the high four bits;
# * `sums` is F32 × 16. Any distribution of the products over the 16 lanes is right: in the end all lanes are added.
#
# The check compiles your body, runs it in a process of its own, and counts: it allows 1.5 times the instructions of its own
# kernel.


# %% tags=["exercise"]
def dequantise_product(block, x, sums):
    """Sums, and the products of the block's weights in float32."""
    raise NotImplementedError


# %% tags=["solution"]
def dequantise_product(block, x, sums):
    """Sums, and the products of the block's weights in float32."""
    raw, scale = block.quants(), block.scales()
    low = ((raw & 15).to(I32) - 8).to(F32) * scale
    high = ((raw >> 4).to(I32) - 8).to(F32) * scale
    return fma(high, x.high(), fma(low, x.low(), sums))


# %% [markdown] tags=["hint"]
# The low codes are `raw & 15`, the high ones `raw >> 4`. Convert to I32 *before* you subtract 8 (a byte would wrap), then to F32,
# then multiply with the scale. Two `fma`: one adds the low products to `sums`, the other the high products to the result.

# %% tags=["check"]
check.dequantise_product(dequantise_product)

# %% [markdown]
# The count is that of the innermost loop in the machine code, for four blocks. A *load* only loads; most other instructions can
# take one operand from memory, too. Here are the first lines of your loop, if your processor is an x86 in AT&T's order: sources
# first, the result last; `zmm` has 64 bytes, `ymm` 32, `xmm` 16.

# %%
mine = {"floats": attempt_kernel(dequantise_product, FLOAT)}
if mine["floats"]:
    print(*mine["floats"].loop[:24], "...", sep="\n")
    print(count_table([mine["floats"]]))
    if isinstance(allowed, float):
        print(limit_sentence("floats", mine["floats"].instructions, allowed))

# %% [markdown]
# ## 3. Integers
#
# Converting takes most of these instructions. The other way is to convert *the activations*, once for all rows: to int8, with
# one scale for 32 of them (Q8_0). Then codes and activations are bytes, and one instruction multiplies 64 of them, on
# processors that have it (`vpdpbusd` of AVX-512 VNNI, `sdot` of ARM). The products of a block add up as exact integers, and
# are scaled once. But this instruction multiplies *unsigned* by signed bytes. So the codes stay 0 to 15, and the 8 must
# come off in another way:
#
# $$\sum_i (c_i - 8)\, x_i = \sum_i c_i x_i - 8 \sum_i x_i$$
#
# The second sum does not depend on the weights: it is computed once for a vector, not once for a row.
#
# ### Exercise 3: the correction
# A block has four lanes of the integer sums. Each of its lanes starts with the same integer, so that the four together are
# corrected. Return it for each block of `x_codes` (int8, `[blocks, 32]`): exact integers, `[blocks]`.


# %% tags=["exercise"]
def correction(x_codes):
    """Start of each of the four lanes of a block, [blocks]."""
    raise NotImplementedError


# %% tags=["solution"]
def correction(x_codes):
    """Start of each of the four lanes of a block, [blocks]."""
    return -2 * x_codes.astype(np.int32).sum(axis=-1)


# %% [markdown] tags=["hint"]
# The four lanes together start with -8 times the sum of the block's codes. Convert to int32 before you multiply: -8 times an
# int8 does not fit in 8 bits.

# %% tags=["check"]
check.correction(correction)

# %% tags=["check-output"]
x_scales, x_codes = quantise_input(np.sin(np.arange(64, dtype=np.float32)))
print("sums of the codes:", x_codes.astype(int).sum(-1).tolist())
print("starts of the lanes:", attempt(lambda: np.asarray(correction(x_codes)).tolist()))

# %% [markdown]
# ### Exercise 4: a kernel of integers
# Now your body gets **four** blocks, so that vectors of 64 bytes are full. Everything is in the order of the blocks:
#
# * `blocks.quants()`: U8 × 64, 16 bytes of each block; `blocks.scales()`: F32 × 4;
# * `x.low()`, `x.high()`: I8 × 64, the activations' codes for the low and the high four bits;
# * `x.scales()`: F32 × 4; `x.corrections()`: I32 × 4, your numbers of exercise 3;
# * `sums`: F32 × 16. After a `dot`, the lanes 0 to 3 belong to the first block, 4 to 7 to the second, and so on.
#
# Lane by lane: new sum = sum + (start + products of codes) × both scales. The check allows 1.5 times its own instructions.

# %%
gain = Prediction(
    "17",
    "integers over floats, instructions",
    "Instructions a weight of the float kernel over those of the integer kernel?",
    "times",
)
gain.ask()

# %% tags=["solution"]
gain.record(4)  # "a float has four times the bytes"


# %% tags=["exercise"]
def integer_product(blocks, x, sums):
    """Sums, and the products of four blocks by integer arithmetic."""
    raise NotImplementedError


# %% tags=["solution"]
def integer_product(blocks, x, sums):
    """Sums, and the products of four blocks by integer arithmetic."""
    raw, block_of = blocks.quants(), [lane // 4 for lane in range(16)]
    start = x.corrections().permute(block_of)
    dots = dot_narrow([raw & 15, raw >> 4], [x.low(), x.high()], 15, start)
    scales = (blocks.scales() * x.scales()).permute(block_of)
    return fma(dots.to(F32), scales, sums)


# %% [markdown] tags=["hint"]
# `permute([0, 0, 0, 0, 1, 1, 1, 1, ...])` gives each lane the number of its block: once for the corrections, once for the
# product of the two scales. `dot_narrow([raw & 15, raw >> 4], [x.low(), x.high()], 15, start)` makes I32 × 16; convert it to
# F32, and `fma` adds it, scaled, to `sums`.

# %% tags=["check"]
check.integer_product(integer_product)

# %%
mine["integers"] = attempt_kernel(integer_product, CODED)
package = package_kernel("Q4_0", isa)
counted = [kernel for kernel in mine.values() if kernel]
print(count_table([*counted, package]))
if isinstance(allowed, float):
    for name, kernel in {**mine, "package": package}.items():
        if kernel:
            print(limit_sentence(name, kernel.instructions, allowed))
if len(counted) == 2:
    show(gain.compare(mine["floats"].instructions / mine["integers"].instructions))

# %% [markdown]
# *Bytes loaded* counts all loads of the loop, also those from caches: 0.5625 bytes a weight come from memory, the rest are
# activations. The vector fits in the first cache, because all rows use it. The package's kernel works on several rows
# at a time, so that their loads of activations are shared, and joins the sums of 8 blocks before it scales them.
#
# The price of integers is the rounding of the activations:

# %%
weights = random_blocks(64, 1024)
x = np.random.default_rng(3).standard_normal(1024).astype(np.float32)
exact = dequantised(weights) @ x
for (name, kernel), shape in zip(mine.items(), (FLOAT, CODED), strict=True):
    if kernel:
        error = np.abs(loaded_product(kernel, shape)(weights, x) - exact)
        print(f"{name}: largest error {error.max() / exact.std():.1e} of a typical result")

# %% [markdown]
# ## 4. Timed
#
# A matrix of 151 MB, larger than most caches; one thread; the kernels take turns. The speed of each kernel is compared with the package's, with
# the interval of lab 11.

# %%
share = Prediction(
    "17",
    "own integer kernel over the package",
    "Your integer kernel's speed over that of the package's, on one core?",
    "times",
)
share.ask()

# %% tags=["solution"]
share.record(0.8)  # "nearly as few instructions"

# %%
with running("a matrix larger than the caches", seconds=3):
    matrix = large_matrix()
products = {
    name: loaded_product(kernel, shape)
    for (name, kernel), shape in zip(mine.items(), (FLOAT, CODED), strict=True)
    if kernel
}
products["package"] = package_product(isa)
with running("products, in turn", seconds=8):
    timed = time_products(products, matrix)
for name in products:
    measurement("17", f"{name}, billions of weights a second", timed.rate(name) / 1e9, "billions/s")
    if name != "package":
        print(timed.sentence(name, "package"))
if "integers" in products:
    show(share.compare(timed.speed_up("integers", "package").middle))
if len(products) == 3:
    print(timed.sentence("integers", "floats"))

# %%
kernels = {name: kernel for name, kernel in mine.items() if kernel} | {"package": package}
dots = {
    name: KernelDot(kernel.instructions, kernel.loaded_bytes, timed.rate(name))
    for name, kernel in kernels.items()
}
show(core_roofline(core, BITS / 8, dots, "Kernels of Q4_0 on the roofline of one core"))

# %% [markdown]
# The flat lines are memory, the falling ones are cycles. A dot that is above the upper flat line says that other programs disturbed
# one of the two measurements more than the other. (Some servers have caches of more than 100 MB, which hold a part of the
# matrix; but the bandwidth was measured on as many bytes.)
#
# A dot *below* all its lines waits for something that the count does not show: an instruction takes several cycles until
# its result exists, wide instructions have only one or two units, and loads wait for memory. If the package is faster with
# about as many instructions, compare the columns *of one stream* and *of memory*: your kernels read one row after the other,
# in a single stream. The package asks for its bytes 2 KB ahead (`prefetch`) and reads several distant rows, so that more loads are under
# way at a time.
#
# ## 5. Other types, other instruction sets
#
# The package's own kernels. Each one is compiled when you choose it, which takes some seconds the first time. *generic* is plain
# vector code for any processor of this kind; on x86 it has neither `fma` nor conversions from float16, and calls or
# imitates them (what a called function runs is not counted).

# %%
NAMES = {each.value: each for each in available_isas()}


def counts(settings):
    """The bars without widgets: settings in, figure out."""
    kernel = package_kernel(settings["type"], NAMES[settings["isa"]])
    title = (
        f"{settings['type']}, {settings['isa']}: {kernel.instructions:.2f} instructions a weight"
    )
    return instruction_bars([kernel], title)


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown("type", "type", TYPES, "Q4_0", "of the weights"),
        Dropdown("isa", "instruction set", tuple(NAMES), isa.value, "of this processor"),
    ],
    counts,
).show()

# %% [markdown]
# The same without widgets, for the best instruction set here:

# %%
of_types = collect((package_kernel(kind, isa) for kind in TYPES), "kernels", len(TYPES))
show(instruction_bars(of_types, "The package's kernels"))

# %% [markdown]
# ## 6. The same in Pallas
#
# Pallas is JAX's language for kernels on GPUs and TPUs. There, too, you write what happens with one tile; a *grid* says
# how many tiles there are, and a `BlockSpec` says which part of each array a program of the grid sees. Here the program is
# *interpreted* on the CPU: right, slow, and equal on all machines.
#
# ### Exercise 5: a Pallas kernel
# The grid goes over tiles of rows. Each program sees *references*: `scales` `[tile, blocks]` float32, `quants`
# `[tile, blocks, 16]` uint8, `x` `[blocks, 32]` float32, and `y` `[tile]` float32 for the result. `ref[...]` reads a whole
# reference, `ref[...] = value` writes it. Return nothing.


# %% tags=["exercise"]
def pallas_kernel(scales, quants, x, y):
    """Write the products of a tile of rows with x to y."""
    raise NotImplementedError


# %% tags=["solution"]
def pallas_kernel(scales, quants, x, y):
    """Write the products of a tile of rows with x to y."""
    raw = quants[...]
    codes = jnp.concatenate([raw & 15, raw >> 4], axis=-1).astype(jnp.float32) - 8
    weights = codes * scales[...][..., None]
    y[...] = (weights * x[...][None]).sum(axis=(1, 2))


# %% [markdown] tags=["hint"]
# `jnp.concatenate([raw & 15, raw >> 4], axis=-1)` are the 32 codes of each block. Convert to float32, subtract 8, multiply with
# `scales[...][..., None]` and `x[...][None]`, and sum over the axes 1 and 2.

# %% tags=["check"]
check.pallas_kernel(pallas_kernel)

# %%
in_pallas = attempt(pallas_product, pallas_kernel, weights, x)
if isinstance(in_pallas, np.ndarray):
    error = np.abs(in_pallas - exact).max() / exact.std()
    print(f"64 rows in 8 programs: largest error {error:.1e} of a typical result")
else:
    print(in_pallas)

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * One row of 4-bit weights times a vector needs 0.56 bytes a weight. Memory allows a core a fraction of an instruction, or
#   little more, for each of them.
# * Instructions are counted in the machine code, and the count is the same on a busy machine. Time it afterwards.
# * Quantise the small side (activations), once. Then products are bytes, sums are exact integers, and a scale is one
#   multiplication for a block.
# * A zero point needs no subtraction for each weight: it is a correction by the sum of the activations.
# * Few instructions are necessary, not sufficient: latency, units, and loads under way decide the rest.
#
# | what | llama.cpp | minillama |
# |---|---|---|
# | Q4_0 times a vector | `ggml_vec_dot_q4_0_q8_0`, by hand for each instruction set | `minillama/kernels/cpu/matmul/gemv.py`, traced for all of them |
# | quantised activations | `quantize_row_q8_0` | `minillama/kernels/cpu/matmul/activations.py` |
# | several rows at a time | `ggml_gemv_q4_0_8x8_q8_0` (repacked weights) | distant rows, no repacking |
# | choose the instruction set | build flags, `GGML_CPU_ALL_VARIANTS` | `MINILLAMA_CPU_KERNELS=avx2` |
#
# ## When you get an error
#
# * `Operands must be the same type`: the two sides of an operator have other elements or lanes; convert with `.to(...)`, choose
#   lanes with `.permute(...)`.
# * `your kernel ended its process with SIGSEGV`: it loaded from an address of its own. Only the given blocks and activations
#   have memory.
# * `your kernel did not end`: a loop of the SIMD language in your body has no end. A body needs no loop.
# * `the machine code has no loop`: the compiler found that the result does not depend on the blocks.
# * A cell waits for another measurement on this machine: it says for which one, and goes on when that has ended.
