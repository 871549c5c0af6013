"""Tests and setups in the order of llama-bench."""

from pathlib import Path

from minillama.measure.speed.bench_plan import Plan, Workload
from minillama.measure.trial import Trial


def test_tests_in_the_order_of_llama_bench() -> None:
    workload = Workload((512, 0, 16), (128,), ((8, 2), (0, 0)), (0, 4096))
    assert [trial.name for trial in workload.trials()] == [
        "pp512", "pp16", "tg128", "pp8+tg2",
        "pp512 @ d4096", "pp16 @ d4096", "tg128 @ d4096", "pp8+tg2 @ d4096",
    ]  # fmt: skip
    assert Trial(8, 2, 100).positions == 110


def test_model_is_the_outer_and_threads_the_inner_loop() -> None:
    plan = Plan((Path("a"), Path("b")), (1, 2), n_ubatch=(64, 128), type_k=("f16", "f32"))
    found = [(s.model.name, s.n_ubatch, s.type_k, s.n_threads) for s in plan.setups()]
    assert found == [(m, u, k, t) for m in "ab" for u in (64, 128) for k in ("f16", "f32") for t in (1, 2)]
