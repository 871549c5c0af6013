"""Graded items of lab 03: the five functions of a Llama."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minillama.lab import llama_numpy
from minillama.lab.grading.check import Answer, Mistake, Score, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import message, translate
from minillama.lab.llama_numpy import Functions, Sizes

LAB = "03"
TOLERANCE = 1e-4  # float32 is good enough
Normal = Callable[..., np.ndarray]


def _normal_of(seed: int) -> Normal:
    """Hidden inputs: normal(*shape, scale=1.0)."""
    random = hidden_random(seed)
    return lambda *shape, scale=1.0: scale * random.standard_normal(shape)


@graded(LAB, "1. RMSNorm")
def rms_norm(answer: Answer) -> str:
    """`rms_norm(x, weight, epsilon)`."""
    mistakes = (
        Mistake(
            "is epsilon inside the root?", lambda x, w, e: x / (np.sqrt(np.mean(x * x, -1, keepdims=True)) + e) * w
        ),
        Mistake("epsilon is missing", lambda x, w, e: x / np.sqrt(np.mean(x * x, -1, keepdims=True)) * w),
        Mistake("the weight is missing", lambda x, w, e: llama_numpy.rms_norm(x, np.ones_like(w), e)),
        Mistake(
            "mean of the squares, not their sum", lambda x, w, e: x / np.sqrt(np.sum(x * x, -1, keepdims=True) + e) * w
        ),
        Mistake(
            "each token is normalised separately: mean over the last axis only",
            lambda x, w, e: x / np.sqrt(np.mean(x * x) + e) * w,
        ),
        Mistake(
            "over the last axis, not the first", lambda x, w, e: x / np.sqrt(np.mean(x * x, 0, keepdims=True) + e) * w
        ),
        Mistake("that is LayerNorm: RMSNorm does not subtract the mean", _layer_norm),
        Mistake("the root is missing", lambda x, w, e: x / (np.mean(x * x, -1, keepdims=True) + e) * w),
        Mistake("divide by the root", lambda x, w, e: x * np.sqrt(np.mean(x * x, -1, keepdims=True) + e) * w),
    )
    normal = _normal_of(303)
    x, weight = normal(5, 16), 1 + normal(16, scale=0.2)
    expect_equal(
        answer,
        (x, weight, 1e-5),
        llama_numpy.rms_norm,
        mistakes,
        tolerance=TOLERANCE,
        case=message("an ordinary input"),
    )
    expect_equal(
        answer,
        (x * 1e-3, weight, 1e-5),
        llama_numpy.rms_norm,
        mistakes,
        tolerance=TOLERANCE,
        case=message("a small input, where epsilon counts"),
    )
    return "with epsilon inside the root, token by token."


def _layer_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + epsilon) * weight


def rope_variant(
    *, halves: bool = False, first: int = 0, sign: int = 1, step: int = 2, swapped: bool = False
) -> Callable[[np.ndarray, float], np.ndarray]:
    """RoPE with one deliberate mistake."""

    def rotate(x: np.ndarray, base: float) -> np.ndarray:
        tokens, _, size = x.shape
        exponent = np.arange(size // 2) * step / size
        angle = sign * (first + np.arange(tokens))[:, None] * base**-exponent
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        if swapped:
            cos, sin = sin, cos
        if halves:
            a, b = x[..., : size // 2], x[..., size // 2 :]
            return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)

    return rotate


def _along_heads(x: np.ndarray, base: float) -> np.ndarray:
    return llama_numpy.rope(x.swapaxes(0, 1), base).swapaxes(0, 1)


def _not_interleaved(x: np.ndarray, base: float) -> np.ndarray:
    turned = llama_numpy.rope(x, base)
    return np.concatenate([turned[..., 0::2], turned[..., 1::2]], axis=-1)


@graded(LAB, "2. RoPE")
def rope(answer: Answer) -> str:
    """`rope(x, base)`, neighbouring pairs."""
    mistakes = (
        Mistake(
            "that pairs i with i + H/2 (NEOX, as Qwen does); Llama files pair neighbours: 2i and 2i + 1",
            rope_variant(halves=True),
        ),
        Mistake("the first token has position 0 and is not rotated", rope_variant(first=1)),
        Mistake("the other way round: (a cos - b sin, a sin + b cos)", rope_variant(sign=-1)),
        Mistake("the exponent is -2i/H for pair i; yours is -i/H", rope_variant(step=1)),
        Mistake("the exponent is -2i/H for pair i; yours is -4i/H", rope_variant(step=4)),
        Mistake("sine and cosine are exchanged", rope_variant(swapped=True)),
        Mistake("the position is the index on the first axis (tokens), not on the heads' axis", _along_heads),
        Mistake(
            "put the two of each pair next to each other again: stack on a new last axis, then reshape",
            _not_interleaved,
        ),
        Mistake("nothing was rotated", lambda x, base: x),
    )
    normal = _normal_of(313)
    for x, base in ((normal(6, 2, 8), 10000.0), (normal(9, 4, 32), 500000.0)):
        expect_equal(
            answer,
            (x, base),
            llama_numpy.rope,
            mistakes,
            tolerance=TOLERANCE,
            case=translate("{tokens} tokens, base {base:g}", tokens=x.shape[0], base=base),
        )
    return "pairs, angles and directions, at every position."


def attention_variant(
    *,
    scale: Callable[[int], float] = lambda size: size**-0.5,
    causal: int | None = 0,
    modulo: bool = False,
    axis: int = -1,
    scrambled: bool = False,
    zeros: bool = False,
) -> Answer:
    """Attention with one deliberate mistake."""

    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        tokens, heads, size = q.shape
        shared = np.arange(heads) % k.shape[1] if modulo else np.arange(heads) // (heads // k.shape[1])
        scores = np.einsum("TNH,SNH->NTS", q, k[:, shared]) * scale(size)
        if causal is not None:
            scores = np.where(np.tri(tokens, k=causal, dtype=bool), scores, 0.0 if zeros else -1e30)
        weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
        weights /= weights.sum(axis=axis, keepdims=True)
        out = np.einsum("NTS,SNH->NTH", weights, v[:, shared])
        return (out if scrambled else out.swapaxes(0, 1)).reshape(tokens, heads * size)

    return attend


@graded(LAB, "3. attention with shared heads")
def attention(answer: Answer) -> str:
    """`attention(q, k, v)`, causal, grouped."""
    mistakes = (
        Mistake("the scores are divided by the root of the head size", attention_variant(scale=lambda size: 1.0)),
        Mistake("divide by the *root* of the head size", attention_variant(scale=lambda size: 1 / size)),
        Mistake("divide by the root of the head size, you multiply", attention_variant(scale=lambda size: size**0.5)),
        Mistake("a token attends to the future: mask the keys after each query", attention_variant(causal=None)),
        Mistake("a token attends to one token ahead: the mask is off by one", attention_variant(causal=1)),
        Mistake("masked scores become -infinity before softmax; 0 is still a score", attention_variant(zeros=True)),
        Mistake(
            "query head j uses key head j // (N/K), neighbours share; yours is j % K", attention_variant(modulo=True)
        ),
        Mistake(
            "softmax goes over the keys (each query's weights sum to 1), yours over the queries",
            attention_variant(axis=-2),
        ),
        Mistake("bring the result to [T, N, H] before you flatten the heads", attention_variant(scrambled=True)),
        Mistake(
            "a token sees itself too: the diagonal of the mask is allowed",
            lambda q, k, v: np.nan_to_num(attention_variant(causal=-1)(q, k, v)),
        ),
    )
    normal = _normal_of(323)
    for heads, kv_heads in ((4, 4), (4, 2), (6, 2)):
        given = normal(7, heads, 8), normal(7, kv_heads, 8), normal(7, kv_heads, 8)
        label = translate("{heads} query heads on {kv_heads} key heads", heads=heads, kv_heads=kv_heads)
        expect_equal(answer, given, llama_numpy.attention, mistakes, tolerance=TOLERANCE, case=label)
    return "scaled, masked, and the right heads share."


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@graded(LAB, "4. SwiGLU")
def swiglu(answer: Answer) -> str:
    """`swiglu(x, gate, up, down)`."""
    mistakes = (
        Mistake("silu belongs on the gate, not on up", lambda x, g, u, d: llama_numpy.swiglu(x, u, g, d)),
        Mistake("silu(z) = z · sigmoid(z); the z is missing", lambda x, g, u, d: (_sigmoid(x @ g.T) * (x @ u.T)) @ d.T),
        Mistake("that is relu, not silu", lambda x, g, u, d: (np.maximum(x @ g.T, 0) * (x @ u.T)) @ d.T),
        Mistake("there is no activation on the gate yet", lambda x, g, u, d: ((x @ g.T) * (x @ u.T)) @ d.T),
        Mistake(
            "gate and up are multiplied, not added", lambda x, g, u, d: (x @ g.T * _sigmoid(x @ g.T) + x @ u.T) @ d.T
        ),
        Mistake("up is missing", lambda x, g, u, d: (x @ g.T * _sigmoid(x @ g.T)) @ d.T),
    )
    normal = _normal_of(333)
    given = normal(5, 12), normal(20, 12), normal(20, 12), normal(12, 20)
    expect_equal(answer, given, llama_numpy.swiglu, mistakes, tolerance=TOLERANCE, case="D = 12, F = 20")
    return "gated, and back to the model's width."


def _weights(normal: Normal) -> tuple[dict[str, np.ndarray], Sizes]:
    sizes = Sizes(heads=4, kv_heads=2, epsilon=1e-5, base=10000.0)
    shapes = {"attn_q": (16, 16), "attn_k": (8, 16), "attn_v": (8, 16), "attn_output": (16, 16)}
    shapes |= {"ffn_gate": (24, 16), "ffn_up": (24, 16), "ffn_down": (16, 24)}
    w = {name: normal(*shape, scale=0.4) for name, shape in shapes.items()}
    return w | {"attn_norm": 1 + normal(16, scale=0.3), "ffn_norm": 1 + normal(16, scale=0.3)}, sizes


def _layer_with(functions: Functions) -> Answer:
    return lambda x, w, sizes: llama_numpy.layer(x, w, sizes, functions)


def _second_from_x(x: np.ndarray, w: dict[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    middle = llama_numpy.layer_activations(x, w, sizes, Functions())["ffn_inp"]
    h = llama_numpy.rms_norm(x, w["ffn_norm"], sizes.epsilon)
    return middle + llama_numpy.swiglu(h, w["ffn_gate"], w["ffn_up"], w["ffn_down"])


def _from_steps(combine: Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray]) -> Answer:
    return lambda x, w, sizes: combine(x, llama_numpy.layer_activations(x, w, sizes, Functions()))


def _swapped_norms(x: np.ndarray, w: dict[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    return llama_numpy.layer(x, w | {"ffn_norm": w["attn_norm"]}, sizes)


def _unrotated_keys(x: np.ndarray, w: dict[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    def only_queries(part: np.ndarray, base: float) -> np.ndarray:
        return llama_numpy.rope(part, base) if part.shape[1] == sizes.heads else part

    return llama_numpy.layer(x, w, sizes, replace(Functions(), rope=only_queries))


def _no_output(x: np.ndarray, w: dict[str, np.ndarray], sizes: Sizes) -> np.ndarray:
    return llama_numpy.layer(x, w | {"attn_output": np.eye(len(w["attn_output"]))}, sizes)


@graded(LAB, "5. the whole layer")
def layer(answer: Answer) -> str:
    """`layer(x, w, sizes)`."""
    normal = _normal_of(343)
    w, sizes = _weights(normal)
    mistakes = (
        Mistake("the second residual is missing: x + ... twice", _from_steps(lambda x, step: step["ffn_out"])),
        Mistake("both residuals are missing", _from_steps(lambda x, step: step["ffn_out"] + step["attn_out"])),
        Mistake("the feed-forward part starts from x *after* attention was added", _second_from_x),
        Mistake("add to what came out of attention, not to x again", _from_steps(lambda x, step: x + step["ffn_out"])),
        Mistake("the feed-forward part has a norm of its own: ffn_norm", _swapped_norms),
        Mistake("the norms are missing", _layer_with(replace(Functions(), rms_norm=lambda x, w, e: x))),
        Mistake(
            "queries and keys are rotated before attention", _layer_with(replace(Functions(), rope=lambda x, base: x))
        ),
        Mistake("the keys are rotated as well as the queries", _unrotated_keys),
        Mistake("attn_output multiplies what attention gives", _no_output),
    )
    expect_equal(
        answer,
        (normal(6, 16), w, sizes),
        llama_numpy.layer,
        mistakes,
        tolerance=TOLERANCE,
        case=message("a hidden layer"),
    )
    return "two norms, two residuals, all in the right order."


ITEMS = (rms_norm, rope, attention, swiglu, layer)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
