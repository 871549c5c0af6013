"""The labs' mathematics against the engine, and the checks of labs 00, 03, 04."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from lab_checks import solutions

import minillama as ml
from minillama.engine.llm import LLM
from minillama.kernels.cpu_available import instruction_set
from minillama.lab import llama_numpy
from minillama.lab.checks import lab00, lab03, lab04
from minillama.lab.checks.lab03 import attention_variant, rope_variant
from minillama.lab.experiments.batch_sampling import Samples, continuations
from minillama.lab.experiments.next_token import chain_table, next_token, stage_reports
from minillama.lab.grading.check import Item
from minillama.lab.llama_numpy import Functions
from minillama.sampling import Sampling

PROMPT = "Once upon a time, there was a little"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def llm(builtin_model: Path) -> LLM:
    return ml.load(builtin_model, progress=False)


def test_by_hand_agrees_with_the_engine(llm: LLM) -> None:
    """Every named result of the numpy Llama is the engine's, up to the engine's precision."""
    ids = llm.tokenizer.encode(PROMPT)
    trace = llm.trace(ids)
    mine = llama_numpy.forward(llm.file, ids)
    assert set(mine) == {name for name in trace if not name.startswith(("kq_soft_max", "ffn_swiglu"))}
    for name, value in mine.items():
        assert value.shape == trace[name].shape
        assert llama_numpy.relative_difference(value, trace[name]) < 0.03, name
    assert np.array_equal(mine["result_output"].argmax(-1), trace["result_output"].argmax(-1))


def test_a_wrong_function_shows_where_it_is_used(llm: LLM) -> None:
    ids = llm.tokenizer.encode(PROMPT)
    right, wrong = (
        llama_numpy.forward(llm.file, ids),
        llama_numpy.forward(llm.file, ids, Functions(rope=rope_variant(halves=True))),
    )
    assert llama_numpy.relative_difference(wrong["attn_norm-0"], right["attn_norm-0"]) == 0
    assert llama_numpy.relative_difference(wrong["Qcur-0"], right["Qcur-0"]) > 0.1


def test_next_token_names_the_link_that_removed_a_token(llm: LLM) -> None:
    shown = next_token(llm, PROMPT, Sampling(top_k=1, top_p=1.0, min_p=0.0))
    assert shown.text.startswith("1 of 2,048 tokens may follow")
    assert shown.text.count("removed by top-k") == 11
    assert "removed by temperature" in next_token(llm, PROMPT, Sampling(temp=0.0)).text
    assert chain_table(llm, PROMPT, Sampling()).splitlines()[2].split()[:2] == ["logits", "2,048"]


def test_penalties_see_the_prompt(llm: LLM) -> None:
    """A token of the prompt loses, any other gains by it."""
    free, punished = (
        stage_reports(llm, "Lily had a red", Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=penalty))[
            -1
        ]
        for penalty in (1.0, 1.8)
    )
    (token,) = llm.tokenizer.encode(" had", add_special=False)[-1:]
    before, after = (report.probs[report.ids == token][0] for report in (free, punished))
    assert after < before


@pytest.mark.skipif(instruction_set() == "amx", reason="tiles round the last token of a prompt, and a step does not")
def test_many_rows_draw_what_one_stream_draws(llm: LLM) -> None:
    many = continuations(llm, PROMPT, Sampling(temp=0.8), count=4, length=12, seed=5)
    for row, seed in enumerate(range(5, 9)):
        alone = llm.generate(PROMPT, n=12, seed=seed, temp=0.8)
        assert tuple(many.tokens[row][many.valid[row]]) == alone.tokens
        # a difference in the last place may turn the rounding of a key, a value or an activation
        np.testing.assert_allclose(many.logprobs[row][many.valid[row]], alone.logprobs, atol=0.05)


def test_greedy_rows_are_all_the_same(llm: LLM) -> None:
    many = continuations(llm, PROMPT, Sampling(temp=0.0), count=4, length=12)
    assert len(set(many.texts(llm))) == 1
    assert many.distinct(12) == pytest.approx(1 / 4)


def test_samples_count_only_before_the_end() -> None:
    good = np.array([[True, True, True], [True, False, False]])
    samples = Samples(np.array([[1, 2, 1], [7, 9, 9]]), np.log(np.array([[0.5, 0.5, 0.5], [0.5, 0.9, 0.9]])), good)
    assert samples.likelihood == pytest.approx(0.5)
    assert samples.distinct(1) == pytest.approx(3 / 4)
    assert samples.distinct(2) == 1.0


# Lab 00: benchmarks, right and wrong


def patient(f: Callable, make: Callable, clock: Callable = time.perf_counter) -> float:
    jax.block_until_ready(f(make()))
    times = []
    for _ in range(11):
        x = jax.block_until_ready(make())
        start = clock()
        jax.block_until_ready(f(x))
        times.append(clock() - start)
    return sorted(times)[5]


def impatient(f: Callable, make: Callable, clock: Callable) -> float:
    jax.block_until_ready(f(make()))
    x = make().block_until_ready()
    start = clock()
    f(x)
    return clock() - start


def cold(f: Callable, make: Callable, clock: Callable) -> float:
    x = make().block_until_ready()
    start = clock()
    f(x).block_until_ready()
    return clock() - start


def wasteful(f: Callable, make: Callable, clock: Callable) -> float:
    f(make()).block_until_ready()
    times = []
    for _ in range(11):
        start = clock()
        f(make()).block_until_ready()
        times.append(clock() - start)
    return sorted(times)[5]


def averaging(f: Callable, make: Callable, clock: Callable) -> float:
    f(make()).block_until_ready()
    times = []
    for _ in range(20):
        x = make().block_until_ready()
        start = clock()
        f(x).block_until_ready()
        times.append(clock() - start)
    return sum(times) / 20


def reusing(f: Callable, make: Callable, clock: Callable) -> float:
    x = make()
    f(x)
    f(x)
    return 0.0


def lucky(f: Callable, make: Callable, clock: Callable) -> float:
    f(make()).block_until_ready()
    x = make().block_until_ready()
    start = clock()
    f(x).block_until_ready()
    return clock() - start


@pytest.mark.parametrize(
    ("bench", "said"),
    [
        (impatient, "trap 2"),
        (cold, "trap 1"),
        (wasteful, "trap 4"),
        (averaging, "trap 3"),
        (reusing, "Array has been deleted"),
        (lucky, "at least five"),
        (lambda f, make, clock: 0.01, "never called"),
    ],
)
def test_lab00_names_the_trap(bench: Callable, said: str) -> None:
    result = lab00.bench(bench)
    assert not result.passed and said in result.message, result.message


def test_lab00_accepts_a_patient_benchmark() -> None:
    assert lab00.bench(patient).passed
    assert str(lab00.score()).startswith("lab 00: 1 of 1 solved")


def test_patient_benchmark_runs_on_real_arrays() -> None:
    f = jax.jit(lambda x: x * 2.0)
    assert patient(f, lambda: jax.numpy.ones(8)) > 0


# Labs 03 and 04

SOLUTIONS = solutions("03")
RIGHT: dict[Item, Callable] = {
    lab03.rms_norm: lambda x, w, e: (x.T / np.sqrt((x**2).mean(1) + e)).T * w,
    lab03.rope: SOLUTIONS["rope"],
    lab03.attention: SOLUTIONS["attention"],
    lab03.swiglu: lambda x, g, u, d: np.einsum("TF,DF->TD", (x @ g.T) / (1 + np.exp(-x @ g.T)) * (x @ u.T), d),
    lab03.layer: SOLUTIONS["layer"],
    lab04.temperature: lambda x, t: (
        np.eye(len(x))[x.argmax()] if t <= 0 else np.exp(x / t - np.logaddexp.reduce(x / t))
    ),
    lab04.top_p: lambda q, p: top_p_by_loop(q, p),
    lab04.min_p: lambda q, p: np.array([value >= p * max(q) for value in q]),
    lab04.repeat_penalty: lambda x, recent, r: np.array(
        [(v / r if v > 0 else v * r) if i in recent else v for i, v in enumerate(x)]
    ),
}


def top_p_by_loop(probs: np.ndarray, p: float) -> np.ndarray:
    """Reference implementation: take the likeliest until there is enough."""
    keep, total = np.zeros(probs.size, bool), 0.0
    for token in sorted(range(probs.size), key=lambda token: -probs[token]):
        if keep.any() and total >= p and p < 1:
            break
        keep[token] = True
        total += probs[token]
    return keep


def test_right_answers_pass() -> None:
    assert set(RIGHT) == {*lab03.ITEMS, *lab04.ITEMS}
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    assert "5 of 5" in str(lab03.score()) and "4 of 4" in str(lab04.score())


def without(item: Item, **changed: Callable) -> Callable:
    """A layer in which one of the four functions is another."""
    return lambda x, w, sizes: llama_numpy.layer(x, w, sizes, Functions(**changed))


WRONG: list[tuple[Item, Callable, str]] = [
    (lab03.rms_norm, lambda x, w, e: x / (np.sqrt((x**2).mean(-1, keepdims=True)) + e) * w, "inside the root"),
    (lab03.rms_norm, lambda x, w, e: x / np.sqrt((x**2).mean() + e) * w, "last axis"),
    (
        lab03.rms_norm,
        lambda x, w, e: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + e) * w,
        "LayerNorm",
    ),
    (lab03.rope, rope_variant(halves=True), "NEOX"),
    (lab03.rope, rope_variant(sign=-1), "other way round"),
    (lab03.rope, rope_variant(first=1), "position 0"),
    (lab03.rope, rope_variant(step=1), "-i/H"),
    (lab03.attention, attention_variant(causal=None), "future"),
    (lab03.attention, attention_variant(causal=1), "one token ahead"),
    (lab03.attention, attention_variant(scale=lambda size: 1.0), "root of the head size"),
    (lab03.attention, attention_variant(modulo=True), "neighbours share"),
    (lab03.attention, attention_variant(scrambled=True), "flatten"),
    (lab03.attention, attention_variant(axis=-2), "over the keys"),
    (lab03.attention, attention_variant(zeros=True), "infinity"),
    (lab03.swiglu, lambda x, g, u, d: llama_numpy.swiglu(x, u, g, d), "on the gate"),
    (lab03.swiglu, lambda x, g, u, d: ((x @ g.T) * (x @ u.T)) @ d.T, "no activation"),
    (lab03.layer, lambda x, w, s: llama_numpy.layer(x, w, s) - x, "residuals are missing"),
    (lab03.layer, without(lab03.layer, rope=lambda x, base: x), "rotated before"),
    (lab03.layer, lambda x, w, s: llama_numpy.layer(x, w | {"ffn_norm": w["attn_norm"]}, s), "ffn_norm"),
    (
        lab04.temperature,
        lambda x, t: np.eye(len(x))[x.argmax()] if t <= 0 else RIGHT[lab04.temperature](x, 1 / t),
        "flattens",
    ),
    (lab04.temperature, lambda x, t: np.exp(x / t) / np.exp(x / t).sum(), "subtract the largest"),
    (
        lab04.temperature,
        lambda x, t: RIGHT[lab04.temperature](x, t or 1e-9) if t >= 0 else np.ones(len(x)) / len(x),
        "temp=-1",
    ),
    (lab04.top_p, lambda q, p: lab04._prefix(q, lab04._running(q) <= p), "nothing is left|carries the sum"),
    (lab04.top_p, lambda q, p: np.cumsum(q) <= p, "sort|got|kept|carries"),
    (lab04.top_p, lambda q, p: np.flatnonzero(q), "booleans"),
    (lab04.top_p, lab04._with_ties, "equal tokens"),
    (lab04.min_p, lambda q, p: q >= p, "largest"),
    (lab04.min_p, lambda q, p: q > p * q.max(), ">="),
    (lab04.repeat_penalty, lambda x, n, r: lab04._scaled_at(x, n, 1 / r), "reward"),
    (lab04.repeat_penalty, lab04._each_time, "penalised once"),
    (lab04.repeat_penalty, lab04._to_all, "recently"),
    (lab04.repeat_penalty, lab04._subtracted, "factor"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message


def test_a_stub_that_is_called_is_named() -> None:
    def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
        raise NotImplementedError

    def layer(x: np.ndarray, w: dict, sizes: llama_numpy.Sizes) -> np.ndarray:
        return rms_norm(x, w["attn_norm"], sizes.epsilon)

    assert "calls `rms_norm`, which is still an empty stub" in lab03.layer(layer).message
