# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Lab 02 · GGUF from bytes
#
# A model for llama.cpp is *one file*, without code and without a folder of settings. The sizes of the network, the
# vocabulary, the chat template and every weight are in that file, in an order that you can read with Python's `struct`.
# In this lab you open the file that all other labs use, and explain every part of it.
#
# | | |
# |---|---|
# | **Afterwards you can** | explain every byte of a GGUF file, find any row of any tensor, decode Q8_0 and Q4_0 by hand, and explain what `mmap` saves |
# | **Time** | 50 minutes |
# | **You should know** | a little numpy; what a byte and a nibble are |
# | **Runs on** | any laptop, 15 seconds of computing, no network |
# | **In llama.cpp** | `gguf_dump.py model.gguf`, `llama-quantize in.gguf out.gguf Q4_0`, `--load-mode mmap` (for years: `--no-mmap` to turn it off) |

# %%
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from minillama.gguf import TensorType, dequantize, open_gguf
from minillama.lab import Dropdown, IntSlider, Panel, Prediction, show
from minillama.lab.checks import lab02 as check
from minillama.lab.experiments.quantised_blocks import (
    SHOWN_TYPES,
    bits_per_weight,
    block_figure,
    hexdump,
    relative_error,
)
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.grading.check import attempt
from minillama.lab.lab_record import measurement
from minillama.lab.own_model import model_file, model_name
from minillama.lab.plots.lab_plots import bars, treemap

MODEL = None  # or the path of your own GGUF file
path = model_file(MODEL)  # None: the storyteller
print(f"{path.name}: {path.stat().st_size:,} bytes")

# %% [markdown]
# ## 1. The first hundred bytes
#
# Open any file as bytes and print sixteen per line. On the right you see the printable characters. Names are stored as
# plain text, so you can read them in the dump.

# %% tags=["check-output"]
with path.open("rb") as file:
    first = file.read(112)
print(hexdump(first))

# %% [markdown]
# A GGUF file begins with 24 bytes:
#
# | bytes | type | meaning |
# |---|---|---|
# | 0..3 | 4 characters | the magic, `GGUF` |
# | 4..7 | unsigned 32-bit | version of the format: 3 today |
# | 8..15 | unsigned 64-bit | number of tensors |
# | 16..23 | unsigned 64-bit | number of metadata entries |
#
# All numbers are little-endian: the lowest byte comes first. `struct.unpack_from(format, data, offset)` reads them; in
# its format `<` means little-endian, `I` is an unsigned 32-bit and `Q` an unsigned 64-bit number.
#
# ### Exercise 1: read the header


# %% tags=["exercise"]
def read_header(data: bytes) -> tuple[int, int, int]:
    """Version, tensor count and metadata count of the GGUF file that begins with `data`."""
    raise NotImplementedError


# %% tags=["solution"]
def read_header(data: bytes) -> tuple[int, int, int]:
    """Version, tensor count and metadata count of the GGUF file that begins with `data`."""
    return struct.unpack_from("<IQQ", data, 4)


# %% [markdown] tags=["hint"]
# The first four bytes are the magic, so the numbers start at offset 4. One call reads all three:
# `struct.unpack_from("<I..", data, 4)`. The `<` also switches off the padding that struct would put between them.

# %% tags=["check"]
check.read_header(read_header)

# %% tags=["check-output"]
print(f"your header of the {model_name(MODEL)}:", attempt(read_header, first))

# %% [markdown]
# ## 2. Metadata: the model describes itself
#
# The metadata follow the header, one entry after another: a **key** (a string), the **type** of the value (32-bit
# number), and the **value**. A string is its length in bytes, as an unsigned 64-bit number, followed by that many bytes
# of UTF-8. There is no zero at the end and no padding.
#
# ### Exercise 2: read a string
# Return the text and the offset of the first byte after it, where the next value starts.


# %% tags=["exercise"]
def read_string(data: bytes, offset: int) -> tuple[str, int]:
    """The string that starts at `offset`, and the offset after it."""
    raise NotImplementedError


# %% tags=["solution"]
def read_string(data: bytes, offset: int) -> tuple[str, int]:
    """The string that starts at `offset`, and the offset after it."""
    (length,) = struct.unpack_from("<Q", data, offset)
    end = offset + 8 + length
    return data[offset + 8 : end].decode(), end


# %% [markdown] tags=["hint"]
# `你好` is two characters and six bytes. The length counts bytes: slice the bytes first, `.decode()` the slice after.

# %% tags=["check"]
check.read_string(read_string)

# %% tags=["check-output"]
print("the first key:", attempt(read_string, first, 24))
print("你好 as it would stand in a file:", struct.pack("<Q", 6).hex(" "), "你好".encode().hex(" "))

# %% [markdown]
# With thirteen value types (numbers of ten kinds, booleans, strings, arrays) this is the whole format of the metadata.
# The package's reader does the same in one file of about 300 lines, `minillama/gguf/header_parser.py`; most of
# these lines refuse malformed files with a clear message. These are the model's metadata:

# %%
model = open_gguf(path)
for key, value in model.metadata.items():
    text = (
        f"{len(value)} values, the first: {value[:3]}"
        if isinstance(value, tuple | np.ndarray)
        else repr(value)
    )
    print(f"{key:42} {model.kinds[key]:14} {text[:90]}")

# %% [markdown]
# Read them like a data sheet. `llama.block_count`, `llama.embedding_length` and `llama.attention.head_count` are the
# sizes of the network; `general.architecture` names the formula that they belong to; `tokenizer.ggml.tokens` is the
# vocabulary; `tokenizer.chat_template` is a small program that turns a conversation into one prompt. None of this is in
# an engine's code. Therefore one llama.cpp, or one minillama, runs all these models.
#
# ## 3. The table of tensors
#
# After the metadata comes one row for every tensor: name, number of dimensions, the dimensions, type, and the
# **offset** of its bytes. Two things are easy to get wrong:
#
# * **Dimensions are stored in reverse.** GGUF names the contiguous axis first. A matrix of PyTorch shape `[outputs,
#   inputs]` is stored as `[inputs, outputs]`. numpy names the contiguous axis last, so the reader reverses them.
# * **Offsets count from the start of the data**, not from the start of the file. The data start at the first multiple
#   of `general.alignment` (32 if absent) after the table.

# %% tags=["check-output"]
for tensor in list(model.tensors.values())[:6]:
    print(
        f"{tensor.name:28} {tensor.shape!s:14} {tensor.type.name:5} {tensor.nbytes:9,} bytes "
        f"at {tensor.offset:9,}"
    )

# %%
sizes = {name: tensor.nbytes for name, tensor in model.tensors.items()}
types = {name: tensor.type.name for name, tensor in model.tensors.items()}
show(treemap(sizes, types, f"{path.name}: every tensor, as large as its bytes"))

# %% [markdown]
# Click a block to see its tensors; click the top bar to go back. A large part of a *small* model is its vocabulary.
# This model uses the token embedding twice, as input table and as output head ("tied", there is no `output.weight`).
#
# ### Exercise 3: find a row in the file
# Quantised weights come in **blocks**: a Q8_0 block holds 32 weights in 34 bytes. A row of a matrix is a whole number
# of blocks. At which byte of the file does row `row` of a tensor start? The arguments are the end of the table, the
# alignment, the tensor's own offset, the number of the row, the number of weights in a row, and the block as
# `(weights, bytes)`.


# %% tags=["exercise"]
def row_place(
    header_end: int, alignment: int, offset: int, row: int, row_length: int, block: tuple[int, int]
) -> int:
    """The byte of the file at which row number `row` of a tensor starts."""
    raise NotImplementedError


# %% tags=["solution"]
def row_place(
    header_end: int, alignment: int, offset: int, row: int, row_length: int, block: tuple[int, int]
) -> int:
    """The byte of the file at which row number `row` of a tensor starts."""
    data_start = -(-header_end // alignment) * alignment
    weights, size = block
    return data_start + offset + row * (row_length // weights) * size


# %% [markdown] tags=["hint"]
# Three steps: round `header_end` **up** to a multiple of `alignment` (a multiple stays as it is); add the tensor's
# offset; add `row` times the bytes of a row. A row of 256 weights in Q8_0 is 256 / 32 = 8 blocks, so 8 · 34 = 272
# bytes.

# %% tags=["check"]
check.row_place(row_place)

# %% [markdown]
# ## 4. Q8_0: one scale, 32 small integers
#
# How can a weight be stored in 8 bits instead of 32? Take 32 neighbours, find the largest magnitude, and store every
# weight as a whole number of steps. The step is 1/127 of that magnitude:
#
# | bytes | what |
# |---|---|
# | 0..1 | `d`, the step, a float16 |
# | 2..33 | `qs`, 32 **signed** 8-bit integers |
#
# $$w_j = d \cdot q_j$$
#
# 34 bytes for 32 weights are 8.5 bits a weight.
#
# ### Exercise 4: decode a Q8_0 block


# %% tags=["exercise"]
def decode_q8_0(block: bytes) -> np.ndarray:
    """The 32 weights of a Q8_0 block of 34 bytes, as float32."""
    raise NotImplementedError


# %% tags=["solution"]
def decode_q8_0(block: bytes) -> np.ndarray:
    """The 32 weights of a Q8_0 block of 34 bytes, as float32."""
    scale = np.frombuffer(block, "<f2", count=1).astype(np.float32)
    codes = np.frombuffer(block, np.int8, offset=2).astype(np.float32)
    return scale * codes


# %% [markdown] tags=["hint"]
# `np.frombuffer(block, "<f2", count=1)` reads the float16, `np.frombuffer(block, np.int8, offset=2)` the codes. Convert
# both to float32 *before* you multiply: otherwise the product may be rounded to float16.

# %% tags=["check"]
check.decode_q8_0(decode_q8_0)

# %% [markdown]
# Now run your function on real data: the first block of the first layer's query matrix, compared with the package's
# result.

# %% tags=["check-output"]
query = open_gguf(model_file(None)).tensors["blk.0.attn_q.weight"]  # in Q8_0
block = query.data[0, :34].tobytes()
print(hexdump(block, query.offset))
print("yours:", attempt(lambda: decode_q8_0(block)[:6].round(5)))
print("ours: ", dequantize(query)[0, :6].round(5))

# %% [markdown]
# ## 5. Q4_0: two weights in a byte
#
# Four bits give 16 steps. Q4_0 takes the weight of largest magnitude, *keeps its sign*, and gives it code 0, which
# means −8 steps. Code 8 means zero, code 15 means +7. Sixteen bytes hold the 32 codes, in an unexpected order:
#
# | bytes | what |
# |---|---|
# | 0..1 | `d`, a float16 |
# | 2..17 | `qs`: the **low** nibble of byte *j* is weight *j*, the **high** nibble is weight *j* + 16 |
#
# $$w_j = d \cdot (q_j - 8)$$
#
# This order suits vector instructions: one AND and one shift turn 16 bytes into two runs of 16 neighbours.
#
# ### Exercise 5: decode a Q4_0 block


# %% tags=["exercise"]
def decode_q4_0(block: bytes) -> np.ndarray:
    """The 32 weights of a Q4_0 block of 18 bytes, as float32."""
    raise NotImplementedError


# %% tags=["solution"]
def decode_q4_0(block: bytes) -> np.ndarray:
    """The 32 weights of a Q4_0 block of 18 bytes, as float32."""
    scale = np.frombuffer(block, "<f2", count=1).astype(np.float32)
    packed = np.frombuffer(block, np.uint8, offset=2)
    codes = np.concatenate([packed & 15, packed >> 4]).astype(np.float32)
    return scale * (codes - np.float32(8))


# %% [markdown] tags=["hint"]
# `packed & 15` is the low nibble and `packed >> 4` the high one. Put the 16 low ones first, `np.concatenate`, then
# convert to float32, then subtract 8. (If you subtract first, in uint8, 3 − 8 becomes 251.)

# %% tags=["check"]
check.decode_q4_0(decode_q4_0)

# %% [markdown]
# ## 6. The error of four bits
#
# The storyteller is there in float16 too, so you can quantise it and measure the loss. (Sections 4 to 6 need blocks of Q8_0
# and weights that are not rounded yet, so they stay with the storyteller.) Before you do: Q4_0 has
# steps of 1/8 of the largest weight of its block, Q8_0 of 1/127.

# %%
loss_ratio = Prediction(
    "02",
    "error of Q4_0 over error of Q8_0",
    "How many times larger is the error of Q4_0 than that of Q8_0?",
    "times",
)
loss_ratio.ask()

# %% tags=["solution"]
loss_ratio.record(2)  # "half the bits, twice the error": the guess most people make

# %%
full = open_gguf(model_file("storyteller-f16"))
weights = dequantize(full.tensors["blk.0.ffn_up.weight"]).reshape(-1)
losses = {kind: relative_error(weights, kind) for kind in SHOWN_TYPES}
show(loss_ratio.compare(losses[TensorType.Q4_0] / losses[TensorType.Q8_0], model=127 / 8))
# %% [markdown]
# Every bit less doubles the step, and so the error. Four bits less are a factor of sixteen: 127/8 = 15.9 predicts it
# without a measurement. Half the bits are *not* twice the error.

# %%
labels = [f"{kind.name} · {bits_per_weight(kind):.4g} bits" for kind in SHOWN_TYPES]
show(
    bars(
        labels,
        [100 * losses[kind] for kind in SHOWN_TYPES],
        "What rounding loses, blk.0.ffn_up.weight",
        "error in % of the weights' root mean square",
    )
)

# %% [markdown]
# **Q4_K**, the type inside the popular `Q4_K_M` files, uses the same 4.5 bits as Q4_0 better: 256 weights share two
# float16 scales, and every 32 of them have their own 6-bit scale *and* 6-bit minimum. With the minimum, the 16 steps
# cover exactly the range of the weights, and not a range around zero.
#
# ### Look inside any block
# Choose a type and a block of the tensor. Grey circles are the weights, blue points their quantised values, orange bars
# the difference.


# %%
def draw_block(settings):
    """The block explorer without widgets: settings in, figure out."""
    return block_figure(weights, TensorType[settings["type"]], 32 * settings["block"])


# %% tags=["panel"]
panel = Panel(
    [
        Dropdown(
            "type",
            "type",
            tuple(kind.name for kind in SHOWN_TYPES),
            "Q4_0",
            "how the weights are stored",
        ),
        IntSlider(
            "block",
            "block of 32 weights",
            0,
            weights.size // 32 - 1,
            0,
            "where in the tensor to look",
        ),
    ],
    draw_block,
).show()

# %% [markdown]
# Find a block in which one large weight makes the steps coarse for the 31 others (an *outlier*; move the slider until
# the circles are far from their points). Switch that block to Q4_K and to Q5_0. Which of them helps, and why?
#
# ## 7. mmap: loading without reading
#
# `open_gguf` returned at once, because it did not read the weights. It made the operating system *map* the file into
# memory: a page of 4096 bytes is read at its first access. A large file shows the effect.

# %%
megabytes = 256
resident = Prediction(
    "02",
    "resident after mapping",
    f"A file of {megabytes} MB is mapped and every 64th MB of it is touched. How many MB does "
    "the process grow?",
    "MB",
)
resident.ask()

# %% tags=["solution"]
resident.record(4)  # four places touched, so surely about 4 MB


# %%
def grown(action) -> tuple[float, float, object]:
    """Growth of the process in megabytes, seconds, and the result, which must stay alive."""
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    kept = action()
    return (process.memory_info().rss - before) / 1e6, time.perf_counter() - start, kept


with tempfile.TemporaryDirectory() as folder:
    large = Path(folder) / "large.bin"
    with large.open("wb") as out:
        for _ in range(megabytes):
            out.write(bytes(1_000_000))
    with watched_load():
        mapped_mb, mapped_s, mapping = grown(lambda: np.memmap(large, np.uint8, mode="r"))
        touched_mb, touched_s, _ = grown(
            lambda: [int(mapping[place * 64_000_000]) for place in range(4)]
        )
        read_mb, read_s, content = grown(large.read_bytes)
    del mapping, content
print(f"map:              {mapped_mb:7.2f} MB more, {1e3 * mapped_s:7.2f} ms")
print(f"touch 4 bytes:    {touched_mb:7.2f} MB more, {1e3 * touched_s:7.2f} ms")
print(f"read everything:  {read_mb:7.2f} MB more, {1e3 * read_s:7.2f} ms")

# %%
measurement("02", "megabytes after reading everything", read_mb, "MB")
show(resident.compare(mapped_mb + touched_mb, model=4 * 4096 / 1e6))
# %% [markdown]
# The model says four pages of 4 KB. The measurement is usually slightly more, because the system reads ahead and maps
# neighbouring pages that it already has. Three consequences for a deployment:
#
# * A mapped model opens at once, and the first access to each page waits for the disk. llama.cpp and minillama access
#   all pages while they load a model; otherwise the first token would wait.
# * Two processes with the same model share its pages. Read into private memory, each process has its own copy.
# * "Resident memory" of a mapped model shows the accessed pages, not the needed ones. The system can drop unwritten
#   pages and read them again. Too little memory then makes the machine slow, without an error.

# %% tags=["check-output"]
check.score()

# %% [markdown]
# ## Takeaways
#
# * A GGUF file is: 24 bytes of header, self-describing metadata, a table of tensors, aligned data. An engine needs no
#   other file.
# * GGUF stores dimensions with the contiguous axis first; numpy and PyTorch write the same shape in reverse.
# * Quantisation is a shared scale and small integers. Q8_0: 8.5 bits and about 0.6 % error. Q4_0: 4.5 bits, sixteen
#   times the error. One bit less is a factor of two.
# * `mmap` makes opening free and sharing automatic; it moves the cost of reading to the first access.
#
# | step | with llama.cpp | with minillama |
# |---|---|---|
# | show metadata and tensors | `gguf_dump.py model.gguf` | `minillama inspect -m model.gguf`, `open_gguf(path)` |
# | change the type of all weights | `llama-quantize in.gguf out.gguf Q4_0` | lab 07 |
# | read instead of map | `--load-mode none` (before 2026: `--no-mmap`) | `--no-mmap`, `ml.load(path, use_mmap=False)` |
#
# ## When you get an error
#
# * `NameError`: a cell above was not run. *Run → Run All Above Selected Cell*.
# * `struct.error: unpack_from requires a buffer of at least ...`: the offset is wrong, or a length was read from the
#   wrong offset.
# * `FormatError: ... is not a GGUF file`: the download may be a web page. Print its first bytes with `hexdump`.
# * A check says *not yet* although you corrected the function: run the cell with the function again, then the check.
