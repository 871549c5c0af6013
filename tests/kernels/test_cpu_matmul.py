"""CPU matmul kernels against dequantised float32: every type, kernel and instruction set.

The activations are rounded to int8, x = d c + e with |e| <= d/2 and d = max |x| / 127 over 32 consecutive values.
Nothing else is approximate. So for a row w of weights

    |y - w·x| <= sum |w_i| d_i / 2                 at worst, and
    (y - w·x)^2 = sum w_i^2 d_i^2 / 12             on average, as e is uniform over the step.

The first bound is asserted for every value, the second for the mean, with a margin of a quarter. If x is a multiple of
d, the only error is the rounding of float32 sums.

AMX tiles round activations and weights to bfloat16 instead, each by a relative error of at most 2^-9: together
|x_i w_i| / 256, which is less than the first bound, as d_i / 2 >= |x_i| / 254. 16-bit floats and their activations are
two bfloat16 terms each, and all products except low times low are added up:

    |y - w·x| <= 2^-17 sum |w_i x_i|
"""

from collections.abc import Iterable
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from guard_pages import guarded
from hypothesis import given
from hypothesis import strategies as st
from kernel_calls import InThisProcess
from test_simd import ISAS, mapped
from test_weight import EXACT, random_bytes

from minillama import env
from minillama.kernels.cpu.formats import FORMATS
from minillama.kernels.cpu.matmul import activations_amx, gemm_amx, gemm_neon
from minillama.kernels.cpu.matmul.activations import PanelLayout, RowLayout, code_bytes
from minillama.kernels.cpu.matmul.code_products import sum_groups
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.microtile import MAX_UNPACKED_ROWS, Shape
from minillama.kernels.cpu.matmul_strategies import DECODE_TOKENS
from minillama.kernels.cpu.runtime import registry
from minillama.kernels.cpu.runtime.kernel_roles import TYPES, Role, activation_terms
from minillama.kernels.cpu.runtime.machine_code import callable_at
from minillama.kernels.cpu.simd import Isa, Value
from minillama.kernels.cpu.skinny_gemm.token_tiles import TILE_TOKENS, tile_bytes
from minillama.kernels.decode_blocks import decode

FLOAT_ROUNDING = 3e-6  # of a sum of some thousand products, relative to the sum of their absolute values
QUICK = (Type.Q4_0, Type.Q6_K, Type.F16)  # types whose tests are quick with all instruction sets
USUAL = (Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.IQ4_XS, Type.BF16)
# the kernels of the generic instruction set take seconds to compile; AMX shares most kernels with AVX-512, and
# AVX-VNNI with AVX2
SLOW = {Isa.GENERIC, Isa.AVX_VNNI, *([Isa.AVX512] if ISAS[0] is Isa.AMX else [])} - {ISAS[0]}


def marks(kind: Type, isa: Isa) -> tuple[pytest.MarkDecorator, ...]:
    """Compilations of rare types take most of the time: in CI those for this processor, the others nightly."""
    if kind in QUICK or (kind in USUAL and isa not in SLOW):
        return ()
    return (pytest.mark.slow,) if kind in USUAL or isa is ISAS[0] else (pytest.mark.nightly,)


def cases(kinds: Iterable[Type]) -> pytest.MarkDecorator:
    """Parametrise by type and instruction set; long compilations are marked slow or nightly."""
    return pytest.mark.parametrize(
        ("kind", "isa"),
        [
            pytest.param(kind, isa, id=f"{kind.name}-{isa.value}", marks=marks(kind, isa))
            for isa in ISAS
            for kind in kinds
        ],
    )


@cache
def kernels(kind: Type, isa: Isa):
    return registry.type_kernels(kind, isa, env.kernel_cache_dir())


def role_of(tokens: int) -> Role:
    """The kernel that decodes up to 8 tokens, or reads a longer prompt."""
    return {1: Role.GEMV, 2: Role.GEMV_2}.get(tokens, Role.SKINNY_GEMM if tokens <= TILE_TOKENS else Role.GEMM)


def product(
    kind: Type, isa: Isa, raw: np.ndarray, x: np.ndarray, role: Role | None = None, on: InThisProcess | None = None
) -> np.ndarray:
    """Call the kernels of a type as the handler does: prepare, then multiply.

    role: the kernel, None for `role_of`. on: where they run, None for this process.
    """
    on = InThisProcess(kernels(kind, isa)) if on is None else on
    (tokens, width), rows = x.shape, len(raw)
    role = role_of(tokens) if role is None else role
    if role in (Role.GEMV, Role.GEMV_2):
        prepare, kernel, units, step = Role.PREPARE_GEMV, role, tokens, 7
        size = tokens * RowLayout(width, FORMATS[kind].group).size if kind in FORMATS else 0
    elif role is Role.SKINNY_GEMM:
        prepare, kernel, units, step = Role.PREPARE_SKINNY_GEMM, role, tokens, 19
        size = -(-tokens // TILE_TOKENS) * tile_bytes(width)
        if kind in FORMATS:
            size = tokens * RowLayout(width, FORMATS[kind].group).size
    elif isa.is_neon and kind in FORMATS:
        prepare, kernel, units = Role.PREPARE_GEMM, Role.GEMM, -(-tokens // gemm_neon.PANEL_TOKENS)
        size, step = units * gemm_neon.NeonPanel(width, FORMATS[kind].group).size, 50
    elif (parts := activation_terms(kind, isa)) is not None:
        prepare, kernel, units, step = (
            Role.PREPARE_GEMM,
            Role.GEMM,
            -(-tokens // activations_amx.PANEL_TOKENS),
            gemm_amx.MICROTILE_ROWS,
        )
        size = units * activations_amx.TileLayout(width, parts).size
    else:
        panel = Shape.of(isa, is_float=kind not in FORMATS).panel
        prepare, kernel, units, step = Role.PREPARE_GEMM, Role.GEMM, -(-tokens // panel), MAX_UNPACKED_ROWS
        size = units * 4 * width * panel
        if kind in FORMATS:
            size = units * PanelLayout(width, FORMATS[kind].group, panel, code_bytes(FORMATS[kind], isa)).size
    scratch, y_rows = on.guarded(np.zeros(size + 64, np.uint8)), on.guarded(np.full((tokens, rows), np.nan, np.float32))
    raw, x = on.guarded(raw), on.guarded(x)
    source = x if size == 0 else scratch
    args = MatmulArgs.pack(
        weights=raw.ctypes.data, row_bytes=raw.shape[1], width=width, rows=rows, tokens=tokens,
        source=x.ctypes.data, x=source.ctypes.data, y=y_rows.ctypes.data,
    )  # fmt: skip
    on.call(prepare.name, args, 0, units)
    for first in range(0, rows, step):
        on.call(kernel.name, args, first, min(rows, first + step))
    return y_rows


def steps(x: np.ndarray) -> np.ndarray:
    """d of every value, the step of its rounding."""
    blocks = np.abs(x.astype(np.float64)).reshape(len(x), -1, 32).max(-1) / 127
    return np.repeat(blocks, 32, axis=1)


def tile_rounding(kind: Type, isa: Isa, tokens: int) -> float:
    """Largest relative error of a product with AMX tiles."""
    if role_of(tokens) is not Role.GEMM or (parts := activation_terms(kind, isa)) is None:
        return 0.0
    return 2.0**-8 if parts == 1 else 2.0**-17


def check(kind: Type, raw: np.ndarray, x: np.ndarray, y: np.ndarray, isa: Isa = ISAS[0]) -> None:
    """Assert the bounds of the module's docstring."""
    w = np.asarray(dequantize(raw, kind), np.float64).reshape(len(raw), -1)
    error = np.abs(y - x.astype(np.float64) @ w.T)
    rounding = FLOAT_ROUNDING * (np.abs(x.astype(np.float64)) @ np.abs(w).T)
    if kind not in FORMATS:
        lost = tile_rounding(kind, isa, len(x)) / FLOAT_ROUNDING * rounding
        assert (error <= rounding + lost).all()
        return
    assert (error <= steps(x) / 2 @ np.abs(w).T + rounding).all()
    if error.size >= 200:
        expected = np.sqrt((steps(x) ** 2 / 12 @ (w**2).T).mean())
        assert np.sqrt((error**2).mean()) <= 1.25 * expected + rounding.mean()


@cases(TYPES)
class TestEveryKernel:
    @pytest.mark.parametrize("tokens", [1, 2, 4, 16, 24, 39])
    def test_errors_are_those_of_the_activations(self, kind: Type, isa: Isa, tokens: int) -> None:
        raw = random_bytes(kind, 71, 768)
        x = np.random.default_rng(tokens).standard_normal((tokens, 768)).astype(np.float32)
        check(kind, raw, x, product(kind, isa, raw, x), isa)

    @pytest.mark.parametrize("tokens", [1, 4, 21])
    def test_nothing_else_is_approximate(self, kind: Type, isa: Isa, tokens: int) -> None:
        """Activations are multiples of their step."""
        rng = np.random.default_rng(1)
        raw = random_bytes(kind, 9, 512)
        codes = rng.integers(-127, 128, (tokens, 16, 32))
        codes[..., 5] = 127
        x = (codes * 2.0 ** rng.integers(-9, 3, (tokens, 16, 1))).astype(np.float32).reshape(tokens, 512)
        w = np.asarray(dequantize(raw, kind), np.float64).reshape(9, -1)
        scale = np.abs(x.astype(np.float64)) @ np.abs(w).T
        # codes with a zero point are larger than their weights, and so is the rounding of their sums
        allowed = 4 * FLOAT_ROUNDING + tile_rounding(kind, isa, tokens)
        assert (np.abs(product(kind, isa, raw, x) - x @ w.T) <= allowed * scale).all()

    def test_rows_by_number(self, kind: Type, isa: Isa) -> None:
        raw = random_bytes(kind, 8, 512)
        ids, out = guarded(np.array([7, 0, 7], np.int32)), guarded(np.zeros((3, 512), np.float32))
        raw = guarded(raw)
        args = MatmulArgs.pack(
            weights=raw.ctypes.data, row_bytes=raw.shape[1], width=512, rows=8, tokens=3,
            source=ids.ctypes.data, y=out.ctypes.data,
        )  # fmt: skip
        callable_at(kernels(kind, isa)(Role.EMBED.name), 3)(args.ctypes.data, 0, 3)
        np.testing.assert_allclose(out, dequantize(raw, kind).reshape(8, -1)[ids], rtol=3e-7, atol=3e-8)


@cases(TYPES)
class TestRowsOfABatch:
    """The bits of a token's results do not depend on the tokens that are multiplied with it."""

    def check(self, kind: Type, isa: Isa, width: int, rows: int, counts: Iterable[int]) -> None:
        raw = random_bytes(kind, rows, width)
        x = np.random.default_rng(width).standard_normal((DECODE_TOKENS, width)).astype(np.float32)
        alone = np.concatenate([product(kind, isa, raw, token[None]) for token in x])
        y = product(kind, isa, raw, x[:2], Role.GEMV_2)
        np.testing.assert_array_equal(y.view(np.uint32), alone[:2].view(np.uint32))
        for tokens in counts:
            y = product(kind, isa, raw, x[:tokens], Role.SKINNY_GEMM)
            np.testing.assert_array_equal(y.view(np.uint32), alone[:tokens].view(np.uint32))

    def test_any_number_of_tokens(self, kind: Type, isa: Isa) -> None:
        self.check(kind, isa, 768, 21, (2, 3, 4, 5, 6, 7, 8, 9, 17, DECODE_TOKENS))

    def test_a_row_that_ends_in_single_blocks(self, kind: Type, isa: Isa) -> None:
        """Or, of a float type, in single weights."""
        block = GGML_QUANT_SIZES[kind][0]
        self.check(kind, isa, 9 * block if block > 1 else 1101, 6, (3, 10))


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_codes_are_as_small_as_the_kernels_assume(kind: Type) -> None:
    """So that sums of some products fit in 16 bits."""
    form = FORMATS[kind]
    groups = decode(jnp.asarray(random_bytes(kind, 64, 512)), kind)
    largest = (np.asarray(groups.codes).astype(int) + form.zero_point - groups.zero_point).max()
    assert largest <= form.largest_code <= (255 if form.codes_above_127 else 127)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
@pytest.mark.parametrize(
    "quarters",
    [
        [(0, 1, 2, 3), (4, 5, 6, 7)],
        [(0, 2, 4, 6), (1, 3, 5, 7)],
        [(0, 0, 1, 1), (2, 2, 3, 3), (4, 4, 5, 5), (6, 6, 7, 7)],
        [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)],
    ],
)
def test_sums_of_groups(isa: Isa, quarters: list[tuple[int, ...]]) -> None:
    """Of 8 or 16 groups, in their order."""
    products = np.random.default_rng(0).integers(-1000, 1000, (len(quarters), 16)).astype(np.int32)
    expected = np.zeros(max(max(groups) for groups in quarters) + 1, np.int32)
    for vector, groups in zip(products, quarters, strict=True):
        np.add.at(expected, np.repeat(groups, 4), vector)

    def sums(*vectors: Value) -> Value:
        return sum_groups(list(zip(vectors, quarters, strict=True)))

    np.testing.assert_array_equal(mapped(isa, sums, np.zeros_like(expected), *products), expected)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
class TestQuantisedActivations:
    """Bit for bit the formula of ggml's Q8_0, with a float32 scale."""

    WIDTH = 96

    @pytest.fixture
    def x(self) -> np.ndarray:
        """33 tokens, one more than a panel.

        Two blocks are special: zeros, and values half-way between two codes.
        """
        x = np.random.default_rng(5).standard_normal((33, self.WIDTH)).astype(np.float32)
        x[1, :32] = 0
        x[2, :32] = np.arange(32) - 15.5
        x[2, 0] = 127
        return x

    def expected(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [T, K] and scales [T, K/32]."""
        blocks = x.reshape(len(x), -1, 32)
        top = np.abs(blocks).max(-1)
        inverse = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
        return np.rint(blocks * inverse[..., None]).reshape(x.shape), top * np.float32(1 / 127)

    def prepared(self, isa: Isa, role: Role, x: np.ndarray, units: int) -> np.ndarray:
        """The scratch memory after `units` preparation tasks."""
        scratch = np.zeros(1 << 16, np.uint8)
        args = MatmulArgs.pack(width=self.WIDTH, tokens=len(x), source=x.ctypes.data, x=scratch.ctypes.data)
        callable_at(kernels(Type.Q8_0, isa)(role.name), 3)(args.ctypes.data, 0, units)
        return scratch

    def test_gemv_rows(self, isa: Isa, x: np.ndarray) -> None:
        size = RowLayout(self.WIDTH, 32).size
        rows = self.prepared(isa, Role.PREPARE_GEMV, x, len(x))[: size * len(x)].reshape(len(x), size)
        codes, scales = self.expected(x)
        np.testing.assert_array_equal(rows[:, : self.WIDTH].view(np.int8), codes)
        floats = np.ascontiguousarray(rows[:, self.WIDTH :]).view(np.float32).reshape(len(x), 2, -1)
        np.testing.assert_array_equal(floats[:, 0], scales)
        sums = codes.reshape(*scales.shape, 32).sum(-1)
        if isa is not Isa.AVX2:  # it multiplies signed codes of this type
            np.testing.assert_array_equal(floats[:, 1].copy().view(np.int32), -128 * sums)

    def test_gemm_panels(self, isa: Isa, x: np.ndarray) -> None:
        if activation_terms(Type.Q8_0, isa) is not None:
            pytest.skip("tiles take bfloat16")
        tokens, size = Shape.of(isa, is_float=False).panel, code_bytes(FORMATS[Type.Q8_0], isa)
        scratch = self.prepared(isa, Role.PREPARE_GEMM, x, -(-len(x) // tokens))
        codes, scales = self.expected(x)
        panel = scratch[: PanelLayout(self.WIDTH, 32, tokens, size).size]
        words = panel[: self.WIDTH * tokens * size].view(np.int8 if size == 1 else np.int16)
        found = words.reshape(-1, tokens, 4 // size).swapaxes(0, 1).reshape(tokens, -1)
        np.testing.assert_array_equal(found, codes[:tokens])
        factors = panel[self.WIDTH * tokens * size :].reshape(3, self.WIDTH // 32, tokens, 4)
        sums = codes.reshape(*scales.shape, 32).sum(-1)[:tokens]
        np.testing.assert_array_equal(factors[0].copy().view(np.float32)[..., 0].T, scales[:tokens])
        scaled = scales[:tokens] * sums.astype(np.float32)
        np.testing.assert_array_equal(factors[1].copy().view(np.float32)[..., 0].T, scaled)
        np.testing.assert_array_equal(factors[2].copy().view(np.int32)[..., 0].T, -128 * sums)


@cases([Type.Q4_0, Type.Q8_0, Type.Q4_K, Type.Q6_K, Type.F16])
@given(data=st.data())
def test_all_shapes(kind: Type, isa: Isa, data: st.DataObject) -> None:
    """Sizes off the microtile; rows from one block to more than a chunk."""
    block = 256 if kind in (Type.Q4_K, Type.Q6_K) else 32
    width = block * data.draw(st.one_of(st.integers(1, 12), st.sampled_from([2048 // block + 1, 4096 // block])))
    rows = data.draw(st.integers(1, 150))
    tokens = data.draw(st.sampled_from([1, 2, 4, 5, 9, 16, 17, 24, 25, 32, 40, 45, 64, 89]))
    raw = random_bytes(kind, rows, width, seed=rows)
    x = np.random.default_rng(width).standard_normal((tokens, width)).astype(np.float32)
    check(kind, raw, x, product(kind, isa, raw, x), isa)


@cases([Type.Q4_0, Type.Q8_0, Type.F16])
def test_a_token_of_a_prompt_has_the_same_bits_in_a_longer_one(kind: Type, isa: Isa) -> None:
    """Whole panels, narrow ones, and more rows than are unpacked at a time."""
    raw = random_bytes(kind, 70, 2304)
    x = np.random.default_rng(8).standard_normal((56, 2304)).astype(np.float32)
    y = product(kind, isa, raw, x, Role.GEMM)
    for tokens in (3, 9, 17, 32, 49):
        shorter = product(kind, isa, raw, x[:tokens], Role.GEMM)
        np.testing.assert_array_equal(shorter.view(np.uint32), y[:tokens].view(np.uint32))


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q6_K, Type.F16], ids=lambda kind: kind.name)
def test_long_rows(kind: Type) -> None:
    raw = random_bytes(kind, 5, 16384)
    for tokens in (1, 20):
        x = np.random.default_rng(0).standard_normal((tokens, 16384)).astype(np.float32)
        check(kind, raw, x, product(kind, ISAS[0], raw, x))


@cases(FORMATS)
def test_any_bytes(kind: Type, isa: Isa) -> None:
    """Rows of finite weights are right next to rows of infinities and NaN."""
    size = random_bytes(kind, 1, 512).shape[1]
    raw = np.random.default_rng(3).integers(0, 256, (64, size)).astype(np.uint8)
    with np.errstate(all="ignore"):
        w = np.asarray(dequantize(raw, kind), np.float64)
        sane = np.isfinite(w).all(1) & (np.abs(w).max(1) < 1e30)
    assert sane.any()
    for tokens in (1, 16):
        x = np.random.default_rng(4).standard_normal((tokens, 512)).astype(np.float32)
        y = product(kind, isa, raw, x)
        check(kind, raw[sane], x, y[:, sane], isa)


@cases(EXACT)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_finite_block_is_exact(kind: Type, isa: Isa, seed: int) -> None:
    """Rows by number, of random bytes: all equal numbers of the gguf library."""
    block, size = GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(seed).integers(0, 256, (40, size), np.uint8)
    ids, out = np.arange(40, dtype=np.int32), np.zeros((40, block), np.float32)
    args = MatmulArgs.pack(
        weights=raw.ctypes.data, row_bytes=size, width=block, rows=40, tokens=40,
        source=ids.ctypes.data, y=out.ctypes.data,
    )  # fmt: skip
    callable_at(kernels(kind, isa)(Role.EMBED.name), 3)(args.ctypes.data, 0, 40)
    with np.errstate(all="ignore"):
        expected = dequantize(raw, kind)
    finite = np.isfinite(expected).all(1)
    np.testing.assert_array_equal(out[finite], expected[finite])


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
def test_zeros_give_zeros(isa: Isa) -> None:
    raw = random_bytes(Type.Q4_K, 3, 256)
    for tokens in (1, 5):
        assert not product(Type.Q4_K, isa, raw, np.zeros((tokens, 256), np.float32)).any()
