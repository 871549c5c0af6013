"""Lab 09: the checks name the mistake, and the figures carry their numbers.

What needs eight devices is skipped where JAX has fewer, and run by one test in a process that has them.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.sharding import PartitionSpec as P
from lab_checks import assert_hints_appear

import minillama as ml
from minillama.lab.checks import lab09
from minillama.lab.checks.items import lab09_specs
from minillama.lab.distributed import cluster_simulator, virtual_devices
from minillama.lab.distributed.cluster_simulator import Scaling
from minillama.lab.distributed.virtual_devices import DEVICES, SHAPES
from minillama.lab.grading.check import Item
from minillama.lab.plots import sharding_plots
from minillama.lab.widgets.figure import PLOTLY_MIME
from minillama.measure.limits.all_reduce import all_reduce_seconds
from minillama.measure.limits.collective_traffic import (
    Collective,
    CollectiveArray,
    CollectiveKind,
    sent_bytes,
    tensor_parallel_bytes,
)
from minillama.parallel.sharding.partition_specs import SPECS

ROOT = Path(__file__).resolve().parents[2]


EIGHT = "MINILLAMA_TESTS_ON_EIGHT_DEVICES"  # set in the process that has them


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if EIGHT in os.environ and "devices" not in request.fixturenames:
        pytest.skip("needs no devices, and runs in the ordinary process")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def devices() -> None:
    if len(jax.devices("cpu")) < DEVICES:
        pytest.skip("JAX has one device here; test_on_eight_devices runs this one")


def test_on_eight_devices() -> None:
    command = (sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", __file__)
    environment = {
        **os.environ,
        EIGHT: "1",
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]


def test_too_few_devices_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda platform: [object()])
    with pytest.raises(ml.ResourceError, match=r"1 CPU devices, .* ml.env.prepare\(cpu_devices=8\)"):
        virtual_devices.virtual_mesh()
    for item, answer in ((lab09.by_columns, by_columns), (lab09.specs, lambda: lab09_specs.RIGHT)):
        result = item(answer)
        assert not result.passed and "ml.env.prepare(cpu_devices=8)" in result.message


# Right answers


def by_columns(x: Array, w: Array) -> Array:
    return jax.lax.psum(x @ w.T, "tensor")


def feed_forward(x: Array, gate: Array, up: Array, down: Array) -> Array:
    return jax.lax.psum((jax.nn.silu(x @ gate.T) * (x @ up.T)) @ down.T, "tensor")


def specs() -> dict[str, P]:
    rows, columns = P("tensor", None), P(None, "tensor")
    return {name: columns if name in ("attn_output", "ffn_down") else rows for name in SHAPES}


def bytes_sent(layers: int, width: int, tokens: int, devices: int) -> float:
    return 2 * layers * 2 * (devices - 1) / devices * tokens * width * 4


def break_even(seconds: float, collectives: int, hosts: int) -> float:
    return (seconds - seconds / hosts) / collectives


def test_right_answers_pass(devices: None) -> None:
    answers = (by_columns, feed_forward, specs, bytes_sent, break_even)
    for item, answer in zip(lab09.ITEMS, answers, strict=True):
        assert item(answer).passed, item(answer).message
    assert str(lab09.score()).startswith("lab 09: 5 of 5 solved")


def test_every_hint_on_devices_can_appear(devices: None) -> None:
    assert assert_hints_appear(lab09.by_columns, by_columns) >= 4
    assert assert_hints_appear(lab09.feed_forward, feed_forward) >= 6


def test_a_layer_sends_what_the_formula_says(devices: None) -> None:
    found = virtual_devices.layer_ledger(specs())
    assert sent_bytes(found) == tensor_parallel_bytes(1, virtual_devices.WIDTH, virtual_devices.TOKENS, DEVICES)
    assert lab09.collectives_text(found) == "2 all-reduce" and lab09.collectives_text(()) == "no collectives"


STEPS = """
import json, sys
import minillama as ml
ml.env.prepare(cpu_devices=4, platform="cpu")
from minillama.lab.distributed.virtual_devices import step_ledger
from minillama.measure.limits.collective_traffic import sent_bytes
found = [step_ledger(ml.load(sys.argv[1], tensor_parallel=count, progress=False)) for count in (2, 4)]
print(json.dumps([(sent_bytes(each), next(one.parts[0].shape[1] for one in each if one.count == 1)) for each in found]))
"""


def test_a_step_of_a_model_sends_what_the_formula_says(builtin_model: Path) -> None:
    """In a process without run-time type checks, because PartitionSpecs are no weights."""
    command = (sys.executable, "-c", STEPS, str(builtin_model))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    config = ml.load(builtin_model, progress=False).config
    layers, width = config.block_count, config.embedding_length
    for count, (sent, offered) in zip((2, 4), json.loads(done.stdout), strict=True):
        said = tensor_parallel_bytes(layers, width, 1, count, offered=offered, by_exchange=True)
        assert sent == said and offered < config.vocab_size / count


def test_a_model_on_one_device_sends_nothing(builtin_model: Path) -> None:
    llm = ml.load(builtin_model, progress=False)
    assert virtual_devices.layer_shapes(llm)["ffn_down"] == (256, 512)
    with pytest.raises(ml.OptionError, match="load it with tensor_parallel=2"):
        virtual_devices.step_ledger(llm)


def test_the_lab_cuts_as_the_engine_does() -> None:
    assert lab09_specs.RIGHT == {name: SPECS[name] for name in SHAPES} == specs()


@pytest.mark.slow
def test_no_other_choice_of_specs_is_as_good(devices: None) -> None:
    """All 128 ways to split seven matrices by rows or by columns."""
    good = []
    for choice in itertools.product((P("tensor", None), P(None, "tensor")), repeat=len(SHAPES)):
        result = lab09.specs(lambda choice=choice: dict(zip(SHAPES, choice, strict=True)))
        good += [choice] if result.passed else []
        assert result.passed or "you split " in result.message
    assert good == [tuple(specs().values())]


def test_toy_layer_is_a_layer() -> None:
    """Reference implementation in numpy: one head and one token after another."""
    random = np.random.default_rng(3)
    weights = {name: random.normal(size=shape).astype(np.float32) / 12 for name, shape in SHAPES.items()}
    x = random.normal(size=(virtual_devices.TOKENS, virtual_devices.WIDTH)).astype(np.float32)

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    y, heads = x.copy(), np.zeros((virtual_devices.TOKENS, virtual_devices.HEADS * virtual_devices.HEAD))
    q, k, v = (norm(x) @ weights[name].T for name in ("attn_q", "attn_k", "attn_v"))
    for head in range(virtual_devices.HEADS):
        part = slice(head * virtual_devices.HEAD, (head + 1) * virtual_devices.HEAD)
        for token in range(virtual_devices.TOKENS):
            scores = np.exp(k[: token + 1, part] @ q[token, part] / np.sqrt(virtual_devices.HEAD))
            heads[token, part] = scores / scores.sum() @ v[: token + 1, part]
    y = x + heads @ weights["attn_output"].T
    gate, up = norm(y) @ weights["ffn_gate"].T, norm(y) @ weights["ffn_up"].T
    y = y + (gate / (1 + np.exp(-gate)) * up) @ weights["ffn_down"].T
    assert np.allclose(
        virtual_devices.layer({n: jnp.asarray(w) for n, w in weights.items()}, jnp.asarray(x)), y, atol=1e-4
    )


# Wrong answers


def stub(*arguments: object) -> object:
    raise NotImplementedError


def flipped(*names: str, to: P | None = None) -> Callable[[], dict[str, P]]:
    rows, columns = P("tensor", None), P(None, "tensor")

    def choose() -> dict[str, P]:
        other = {name: rows if spec == columns else columns for name, spec in specs().items()}
        return specs() | {name: other[name] if to is None else to for name in names}

    return choose


def hidden_summed(x: Array, gate: Array, up: Array, down: Array) -> Array:
    return jax.lax.psum(jax.nn.silu(x @ gate.T) * (x @ up.T), "tensor") @ down.T


def twice(x: Array, gate: Array, up: Array, down: Array) -> Array:
    h = jax.lax.all_gather(x @ gate.T, "tensor", axis=1, tiled=True)
    u = jax.lax.all_gather(x @ up.T, "tensor", axis=1, tiled=True)
    down = jax.lax.all_gather(down, "tensor", axis=1, tiled=True)
    return (jax.nn.silu(h) * u) @ down.T


def two_sums(x: Array, gate: Array, up: Array, down: Array) -> Array:
    half = down.shape[1] // 2
    h = jax.nn.silu(x @ gate.T) * (x @ up.T)
    first = jax.lax.psum(h[:, :half] @ down[:, :half].T, "tensor")
    return first + jax.lax.psum(h[:, half:] @ down[:, half:].T, "tensor")


def gathered(x: Array, w: Array) -> Array:
    x = jax.lax.all_gather(x, "tensor", axis=1, tiled=True)
    return x @ jax.lax.all_gather(w, "tensor", axis=1, tiled=True).T


ON_DEVICES: list[tuple[Item, Callable, str]] = [
    (lab09.by_columns, stub, "still the empty stub"),
    (lab09.by_columns, lambda x, w: None, "got None"),
    (lab09.by_columns, lambda x, w: x @ w.T, "its own part of each sum"),
    (lab09.by_columns, lambda x, w: jax.lax.pmean(x @ w.T, "tensor"), "not pmean"),
    (lab09.by_columns, lambda x, w: jax.lax.psum(x, "tensor") @ w.T, "multiply first"),
    (lab09.by_columns, lambda x, w: jax.lax.psum(w @ x.T, "tensor"), "transpose"),
    (lab09.by_columns, lambda x, w: jax.lax.psum(x @ w.T, "model"), 'along the axis "tensor"'),
    (lab09.by_columns, lambda x, w: x @ w, "print the shapes"),
    (lab09.by_columns, lambda x, w: jax.lax.psum_scatter(x @ w.T, "tensor", scatter_dimension=1, tiled=True),
     "a part of the sum"),
    (lab09.by_columns, lambda x, w: jax.lax.psum(2.0 * x @ w.T, "tensor"), "wrong values on device 0"),
    (lab09.by_columns, lambda x, w: jax.lax.psum(x @ w.T, "tensor")[:2], "the shape is"),
    (lab09.by_columns, gathered, "2 all-gather: multiply"),
    (lab09.feed_forward, stub, "still the empty stub"),
    (lab09.feed_forward, lambda x, g, u, d: (jax.nn.silu(x @ g.T) * (x @ u.T)) @ d.T, "after the product with down"),
    (lab09.feed_forward, hidden_summed, "is before the product"),
    (lab09.feed_forward, lambda *a: jax.lax.psum(hidden_summed(*a), "tensor"), "nothing to add up"),
    (lab09.feed_forward, lambda *a: jax.lax.psum(feed_forward(*a), "tensor"), "summed twice"),
    (lab09.feed_forward, lambda *a: feed_forward(*a) / 8.0, "mean"),
    (lab09.feed_forward, lambda x, g, u, d: feed_forward(x, u, g, d), "silu belongs to gate"),
    (lab09.feed_forward, lambda x, g, u, d: jax.lax.psum(((x @ g.T) * (x @ u.T)) @ d.T, "tensor"), "silu is missing"),
    (lab09.feed_forward, lambda x, g, u, d: jax.lax.psum((jax.nn.silu(x @ g.T) + x @ u.T) @ d.T, "tensor"),
     "not added"),
    (lab09.feed_forward, twice, "3 all-gather"),
    (lab09.feed_forward, two_sums, "2 all-reduce; one sum is enough"),
    (lab09.specs, flipped("ffn_down"), "so its input must be gathered first: each device has only its own numbers"),
    (lab09.specs, flipped("attn_output"), "each device has only its own heads"),
    (lab09.specs, flipped("attn_q"), "you split attn_q by columns"),
    (lab09.specs, flipped("attn_v"), "you split attn_v by columns"),
    (lab09.specs, flipped("ffn_gate", "ffn_up"), "you split ffn_gate by columns"),
    (lab09.specs, flipped(*SHAPES), "all-reduce"),
]  # fmt: skip
ANYWHERE: list[tuple[Item, Callable, str]] = [
    (lab09.specs, stub, "still the empty stub"),
    (lab09.specs, lambda: list(SHAPES), "return a dict"),
    (lab09.specs, lambda: {"attn_q": P("tensor", None)}, "no PartitionSpec for attn_k, attn_v"),
    (lab09.specs, lambda: dict.fromkeys(SHAPES, ("tensor", None)), "make it a PartitionSpec"),
    (lab09.specs, flipped("ffn_up", to=P("model", None)), "one axis, 'tensor'"),
    (lab09.specs, flipped("ffn_up", to=P()), "as a whole"),
    (lab09.specs, flipped("ffn_up", to=P(None, None, "tensor")), "two places"),
    (lab09.bytes_sent, stub, "still the empty stub"),
    (lab09.bytes_sent, lambda k, w, t, n: bytes_sent(k, w, t, n) / 2, "half of it"),
    (lab09.bytes_sent, lambda k, w, t, n: bytes_sent(k, w, t, n) / 4, "numbers or bytes|a quarter"),
    (lab09.bytes_sent, lambda k, w, t, n: 2 * k * w * t * 4 * 2 * (n - 1), "of an n-th"),
    (lab09.bytes_sent, lambda k, w, t, n: 2 * k * w * t * 4 * (n - 1), "exchange"),
    (lab09.bytes_sent, lambda k, w, t, n: 2 * k * w * t * 4, "payload"),
    (lab09.bytes_sent, lambda k, w, t, n: 4 * k * w * t * 4, "grows towards"),
    (lab09.bytes_sent, lambda k, w, t, n: bytes_sent(k, w, 1, n), "tokens of the pass"),
    (lab09.bytes_sent, lambda k, w, t, n: n * bytes_sent(k, w, t, n), "not for others"),
    (lab09.break_even, stub, "still the empty stub"),
    (lab09.break_even, lambda s, c, n: s - s / n, "divide by their number"),
    (lab09.break_even, lambda s, c, n: s / n / c, "what is saved|rest"),
    (lab09.break_even, lambda s, c, n: s / c, "no time left"),
    (lab09.break_even, lambda s, c, n: c / (s - s / n), "upside down"),
    (lab09.break_even, lambda s, c, n: break_even(s, c, n) / 2, "already|what is saved"),
]  # fmt: skip


def named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message


@pytest.mark.parametrize(("item", "answer", "said"), ON_DEVICES)
def test_mistakes_on_devices_are_named(item: Item, answer: Callable, said: str, devices: None) -> None:
    named(item, answer, said)


@pytest.mark.parametrize(("item", "answer", "said"), ANYWHERE)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    named(item, answer, said)


def test_own_numbers_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab09, "own", lab09.OwnMeasurement())
    assert lab09.break_even(break_even).passed
    lab09.own.on(0.0123, 7, 2)

    def all_but_own(seconds: float, collectives: int, hosts: int) -> float:
        return 1.0 if seconds == 0.0123 else break_even(seconds, collectives, hosts)

    assert "your own machine" in lab09.break_even(all_but_own).message
    assert lab09.break_even(break_even).passed


# Pictures


def test_parts_cover_a_matrix_once() -> None:
    for spec in (P("tensor", None), P(None, "tensor"), P("tensor"), P()):
        counted = np.zeros((8, 16), int)
        for (y0, y1), (x0, x1) in sharding_plots.shard_ranges((8, 16), spec, 4):
            counted[y0:y1, x0:x1] += 1
        assert np.all(counted == (4 if spec == P() else 1))
    assert (
        sharding_plots.split_axis(P("tensor")),
        sharding_plots.split_axis(P(None, "tensor")),
        sharding_plots.split_axis(P()),
    ) == (
        0,
        1,
        None,
    )
    for wrong in (P("tensor", "tensor2"), P(None, None, "tensor")):
        with pytest.raises(ValueError, match="does not split"):
            sharding_plots.split_axis(wrong)


def test_parts_are_where_jax_puts_them(devices: None) -> None:
    sharding = jax.sharding.NamedSharding(virtual_devices.virtual_mesh(), P(None, "tensor"))
    placed = list(sharding.devices_indices_map((8, 16)).values())
    said = sharding_plots.shard_ranges((8, 16), P(None, "tensor"), DEVICES)
    assert [
        tuple(part.indices(size)[:2] for part, size in zip(index, (8, 16), strict=True)) for index in placed
    ] == said


def test_figures_have_their_numbers() -> None:
    entries = (
        Collective(CollectiveKind.ALL_REDUCE, (CollectiveArray("f32", (1, 256)),), 4, 6),
        Collective(
            CollectiveKind.ALL_GATHER,
            (CollectiveArray("f32", (4, 40)), CollectiveArray("s32", (4, 40)), CollectiveArray("s32", ())),
            4,
            None,
        ),
    )
    curves = {"1 GbE": {1: 1.0, 2: 1.6, 3: 1.7, 4: 1.5}}
    grid = sharding_plots.device_grid({**SHAPES, "attn_norm": (128,)}, {**specs(), "attn_norm": P()}, 8, "Grid")
    figures = (
        grid,
        sharding_plots.ledger_bars(entries, "Ledger"),
        sharding_plots.ledger_bars((), "Nothing"),
        sharding_plots.scaling({1: 1.0, 2: 1.5}, Scaling(0.01, 0.1, 1e-4, 32), "Scaling"),
        sharding_plots.host_curves(curves, "Hosts", needed=2),
    )
    for shown in figures:
        bundle = shown.mime_bundle()
        assert set(bundle) == {PLOTLY_MIME, "text/html", "text/plain"} and len(str(bundle)) < 60_000
        assert shown.text.splitlines()[0] == shown.plotly.layout.title.text
    assert "attn_output  128 × 128       by columns  16 of 128 columns" in figures[0].text
    assert "attn_norm    128             not split   all of it" in figures[0].text
    assert {trace.name for trace in grid.plotly.data} == {"every device", *(f"device {n}" for n in range(8))}
    assert "6 × all-reduce of f32[1,256]                 9,216" in figures[1].text
    assert "? × all-gather of f32[4,40], s32[4,40], ..." in figures[1].text and "unknown" in figures[1].text
    assert "nothing is sent" in figures[2].text
    assert "2          1.5       1.74  1.83" in figures[3].text
    assert "1 GbE  1  1.6  1.5  1.7 with 3" in figures[4].text and "takes 2 to hold" in figures[4].text


def test_all_reduces_of_more_devices_take_longer(devices: None) -> None:
    """Nothing of one device has to wait for another; what eight take, they take together."""
    one, eight = (
        all_reduce_seconds(virtual_devices.virtual_mesh(count), (4096,), repetitions=3)[4096] for count in (1, 8)
    )
    assert 0 < one < eight
    assert cluster_simulator.fit_link({256: eight, 4096: eight}).latency > 0
