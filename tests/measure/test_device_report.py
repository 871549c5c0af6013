"""The report of a device: limits, kernels of a trace, steps in processes within their time, the file."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillama.cli import main
from minillama.errors import OptionError, ResourceError
from minillama.measure.device import device_agreement, limited_steps, model_speeds
from minillama.measure.device.device_agreement import agreement, largest_difference
from minillama.measure.device.device_report import DeviceReport
from minillama.measure.device.device_roofs import chain, device_roofs, turns
from minillama.measure.device.kernel_times import KernelTime, kernel_times, traced_kernels
from minillama.measure.device.limited_steps import Child
from minillama.measure.device.limited_steps import limited_steps as run_limited
from minillama.measure.device.model_speeds import ModelBench
from minillama.measure.device.report_rows import FULL, REDUCED, Sizes, Value
from minillama.measure.device.report_steps import Step, run_steps, steps_named, steps_of

TINY = Sizes("tiny", "tiny", 1 << 20, 64, 1, 16, 2, 20, 2, 1)


class TestRoofs:
    def test_of_this_device(self) -> None:
        found = {value.what: value for value in device_roofs(TINY)}
        assert len(found) == 11 and found["error of float32"].value == 0, "a processor has no TF32"
        differences = {"small product in a program", "turn of a loop"}
        assert all(value.value > 0 for what, value in found.items() if what not in {*differences, "error of float32"})
        assert {value.unit for value in found.values()} == {"GB/s", "TFLOP/s", "us", "std"}

    def test_a_chain_and_a_loop_are_the_same_products(self) -> None:
        x = jax.random.normal(jax.random.key(0), (64, 64), jnp.float32) / 8
        expected = np.linalg.matrix_power(np.asarray(x, np.float64), 16)
        for found in (chain(4, x), turns(x, jnp.int32(4))):
            np.testing.assert_allclose(np.asarray(found), expected, atol=1e-3 * np.abs(expected).max())


def plane(name: str, **lines: list[tuple[str, float]]) -> Any:
    """A plane of a trace; `op_` lines have XLA's operations of a processor."""
    made = [
        Some(
            name=line.replace("_", " ").strip(),
            events=[
                Some(name=event, duration_ns=time, stats=[("hlo_op", event)] if line.startswith("op_") else [])
                for event, time in events
            ],
        )
        for line, events in lines.items()
    ]
    return Some(name=name, lines=made)


class TestKernels:
    def test_of_a_gpu(self) -> None:
        gpu = plane(
            "/device:GPU:0",
            **{
                "Stream_13(Compute)": [("fusion_1", 5e3), ("gemm", 2e3), ("fusion_12", 4e3)],
                "XLA_Modules": [("a", 9e9)],
            },
        )
        host = plane("/host:CPU", op_thread=[("add", 7e9)])
        assert kernel_times([host, gpu]) == [KernelTime("fusion", 2, 9e-6), KernelTime("gemm", 1, 2e-6)]

    def test_of_a_tpu(self) -> None:
        tpu = plane("/device:TPU:0", XLA_Ops=[("dot.3", 5e3)], Steps=[("1", 1e9)])
        assert kernel_times([tpu]) == [KernelTime("dot", 1, 5e-6)]

    def test_of_a_processor(self) -> None:
        host = plane("/host:CPU", op_thread=[("add.1.2", 1e3)], python=[("call", 1e9)])
        assert kernel_times([host]) == [KernelTime("add", 1, 1e-6)]

    def test_of_a_trace(self) -> None:
        double = jax.jit(lambda x: jnp.sin(x) * 2)
        x = jnp.ones((300, 300), jnp.float32)
        jax.block_until_ready(double(x))
        found = traced_kernels(lambda: jax.block_until_ready([double(x) for _ in range(3)]))
        assert found[0].launches % 3 == 0 and 0 < found[0].seconds < 1

    def test_nothing_recorded(self) -> None:
        with pytest.raises(ResourceError, match="CUPTI"):
            traced_kernels(lambda: None)


class TestModels:
    def test_speeds_and_kernels(self, tmp_path: Path) -> None:
        bench = ModelBench(tmp_path, TINY)
        found = {value.what: value for value in model_speeds.prompt_and_tokens(bench, "tiny", "Q4_0")}
        assert list(found) == [
            "load", "tg2", "tg2: compiling", "tg2: share of the bandwidth", "pp16", "pp16: compiling",
        ]  # fmt: skip
        share = found["tg2: share of the bandwidth"]
        read = share.value * bench.bandwidth() / found["tg2"].value  # bytes per token
        assert 0.5 < read / (tmp_path / "tiny-Q4_0.gguf").stat().st_size < 1 and share.origin == "by formula"
        llm = bench.loaded("tiny", "Q4_0")
        profile = list(model_speeds.profile(bench, "tiny", "Q4_0"))
        for name in ("token", "prompt of 16"):
            whole, *parts = (value for value in profile if value.what.startswith(f"{name}: "))
            assert whole.what.endswith("all kernels") and 0 < sum(part.value for part in parts) <= whole.value * 1.001
            assert whole.launches is not None and whole.launches >= 10
        assert bench.loaded("tiny", "Q4_0") is llm, "it is loaded once"

    def test_weights_that_do_not_fit_are_not_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_speeds, "available_bytes", lambda device: 300 << 10)
        with pytest.raises(ResourceError, match="tiny F16 has 3 MiB of weights, but 0 MiB are free"):
            next(model_speeds.prompt_and_tokens(ModelBench(tmp_path, TINY), "tiny", "F16"))
        assert not list(tmp_path.iterdir())

    def test_half_a_model_needs_an_accelerator(self, tmp_path: Path) -> None:
        with pytest.raises(ResourceError, match="accelerator"):
            next(model_speeds.half_offload(ModelBench(tmp_path, TINY), "tiny", "Q4_0"))

    def test_depth_and_several_texts(self, tmp_path: Path) -> None:
        bench = ModelBench(tmp_path, TINY)
        values = [*model_speeds.at_depth(bench, "tiny", "Q4_0"), *model_speeds.several_texts(bench, "tiny", "Q4_0")]
        assert [value.what for value in values if value.unit == "t/s"] == ["tg1 @ d20", "tg2, 2 texts"]
        assert all(value.value > 0 for value in values if value.unit == "t/s")


class TestAgreement:
    def test_in_standard_deviations(self) -> None:
        expected = np.float32([[-2, 2]])
        assert largest_difference(expected + np.float32([[0, 1]]), expected) == 0.5

    def test_another_model_is_seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = ModelBench(tmp_path, TINY)
        right, wrong = bench.path("tiny", "F16"), bench.path("tiny", "Q4_0")
        load = device_agreement.load

        def other_on_device(path: Path, n_gpu_layers: int | None = None, **options: Any) -> Any:
            return load(wrong if n_gpu_layers is None else path, **options)

        assert [value.value for value in agreement(right, "F16")] == [0, 0, 32]
        monkeypatch.setattr(device_agreement, "load", other_on_device)
        *differences, equal = agreement(right, "F16")
        assert min(value.value for value in differences) > 0.5 and equal.value < 32


class TestSteps:
    def test_full_and_reduced(self) -> None:
        assert [step.name for step in steps_of(FULL)][:3] == ["agreement", "roofs", "llama-2-7b-Q4_0"]
        assert [step.name for step in steps_of(REDUCED)][:4] == ["agreement", "roofs", "tiny-Q4_0", "profile"]
        assert len(steps_of(FULL)) == 14 and len(steps_of(REDUCED)) == 10, "each name once"
        assert [step.name for step in steps_named(REDUCED, ["batch", "roofs"])] == ["roofs", "batch"]
        with pytest.raises(OptionError, match="unknown step rofs; known: agreement, roofs"):
            steps_named(FULL, ["rofs"])

    def test_a_step_that_fails_is_refused(self, tmp_path: Path) -> None:
        def fails(bench: ModelBench) -> Iterator[Value]:
            yield Value("before", 2 / 3, "us")
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

        def works(bench: ModelBench) -> Iterator[Value]:
            yield Value("after", 1.0, "s", launches=3.0)

        steps = [Step("a", 1, fails), Step("b", 1, works)]
        events = list(run_steps(steps, ModelBench(tmp_path, TINY)))
        assert [event["event"] for event in events] == [
            "begin", "value", "refused", "end", "begin", "value", "end",
        ]  # fmt: skip
        assert events[1]["value"] == 0.666667 and "launches" not in events[1] and events[5]["launches"] == 3
        assert events[2]["reason"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"


def no_step(bench: ModelBench) -> Iterator[Value]:
    return iter(())


def begin(name: str, *values: float) -> str:
    events = [{"event": "begin", "step": name}]
    events += [{"event": "value", "step": name, "what": "w", "value": value, "unit": ""} for value in values]
    return "".join(json.dumps(event) + "\n" for event in events)


END = json.dumps({"event": "end", "step": ""}) + "\n"
DEVICE = json.dumps({"event": "device", "device": "X", "platform": "gpu", "memory": None, "jax": "1"}) + "\n"
A, B, C = (Step(name, 30, no_step) for name in "abc")


class Children:
    """Processes that print texts; a text "wait" waits, "crash" ends the process."""

    def __init__(self, *scripts: Sequence[str]) -> None:
        self.scripts, self.groups = list(scripts), []

    def __call__(self, group: Sequence[Step]) -> Child:
        self.groups.append("".join(step.name for step in group))
        parts = {"wait": "time.sleep(60)", "crash": "sys.stdout.flush(); sys.exit('it crashed')"}
        lines = [parts.get(text, f"print({text!r}, end='', flush=True)") for text in self.scripts.pop(0)]
        return Child([sys.executable, "-c", "\n".join(["import sys, time", *lines])])


def shown(events: Iterator[Any]) -> list[str]:
    kinds = {"value": "value", "reason": "reason"}
    return [
        f"{event['step']}: {event.get('value', event.get('reason'))}" for event in events if kinds.keys() & event.keys()
    ]


class TestLimits:
    def test_all_is_well(self) -> None:
        start = Children([DEVICE, "noise\n", begin("a", 1), END, begin("b", 2, 3), END])
        assert shown(run_limited([A, B], start, 100.0)) == ["a: 1", "b: 2", "b: 3"] and start.groups == ["ab"]

    def test_a_step_that_takes_too_long(self) -> None:
        start = Children([DEVICE, begin("a", 1), "wait"], [DEVICE, begin("b", 2), END])
        started = time.monotonic()
        assert shown(run_limited([replace(A, seconds=1), B], start, 100.0)) == ["a: 1", "a: stopped after 1 s", "b: 2"]
        assert start.groups == ["ab", "b"] and time.monotonic() - started < 20

    def test_a_crash_costs_one_step(self) -> None:
        start = Children([DEVICE, begin("a"), END, begin("b", 1), "crash"], [DEVICE, begin("c", 2), END])
        found = shown(run_limited([A, B, C], start, 100.0))
        assert found == ["b: 1", "b: the process ended with status 1: it crashed", "c: 2"]
        assert start.groups == ["abc", "c"]

    def test_a_crash_before_the_first_step(self) -> None:
        with pytest.raises(ResourceError, match="cannot start: the process ended with status 1: it crashed"):
            list(run_limited([A, B], Children(["crash"]), 100.0))

    def test_the_limit_of_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limited_steps, "LEAST_SECONDS", 0.5)
        start = Children([DEVICE, begin("a", 1), END, begin("b"), "wait"])
        found = shown(run_limited([A, B, C], start, 1.0))
        assert found == ["a: 1", "b: stopped after 1 s", "c: not run: the limit of 1 s"]

    def test_processors_that_multiply_otherwise_are_another_process(self) -> None:
        steps = [replace(A, by_xla=True), B, C]
        start = Children([DEVICE, begin("a"), END], [DEVICE, begin("b"), END, begin("c", 1), END])
        assert shown(run_limited(steps, start, 100.0)) == ["c: 1"] and start.groups == ["a", "bc"]

    def test_who_stops_ends_the_process(self) -> None:
        made: list[Child] = []
        start = Children([DEVICE, begin("a", 1), "wait"])
        events = run_limited([A], lambda group: made.append(start(group)) or made[-1], 100.0)
        assert next(events)["event"] == "device" and made[0]._process.poll() is None
        events.close()
        assert made[0]._process.poll() is not None and made[0].end_reason == "the process ended with status -9"

    def test_a_line_that_was_cut(self) -> None:
        start = Children([DEVICE, begin("a", 1), '{"event": "val', "crash"])
        assert shown(run_limited([A], start, 100.0)) == ["a: 1", "a: the process ended with status 1: it crashed"]


class TestFile:
    def test_is_whole_after_each_value(self, tmp_path: Path) -> None:
        path = tmp_path / "r.json"
        start = Children([DEVICE, begin("a", 1), END, begin("b", 2), "crash"])
        rows = []
        for event in DeviceReport(path, 100.0).run([A, B], start):
            if event["event"] == "value":
                rows.append([row["value"] for row in json.loads(path.read_text())["rows"]])
        assert rows == [[1], [1, 2]]
        found = json.loads(path.read_text())
        assert found["rows"][1] | {"at": 0} == {
            "step": "b", "what": "w", "value": 2, "unit": "", "at": 0, "device": "X", "jax": "1",
        }  # fmt: skip
        assert found["not_run"] == [{"step": "b", "reason": "the process ended with status 1: it crashed"}]

    def test_no_accelerator(self, tmp_path: Path) -> None:
        start = Children([DEVICE.replace("gpu", "cpu")])
        with pytest.raises(ResourceError, match="no GPU or TPU here; --device cpu runs a small report"):
            list(DeviceReport(tmp_path / "r.json", 100.0).run([A], start))
        assert not (tmp_path / "r.json").exists()


class TestCommand:
    def test_without_an_accelerator(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        if jax.default_backend() != "cpu":
            pytest.skip("there is one")
        assert main(["doctor", "--device-report", str(tmp_path / "r.json"), "--steps", "roofs"]) == 2
        found = capsys.readouterr()
        assert found.out == "" and found.err.splitlines()[-1].startswith("minillama: error: JAX finds no GPU or TPU")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--aot", "cuda"], "use one of them"),
            (["--limit", "0"], "--limit 0: should be a number of seconds above 0"),
            (["--steps", "nothing"], "unknown step nothing; known: agreement, roofs"),
            (["--models", "/nowhere"], "--models /nowhere: there is no such folder"),
            (["--device", "abacus"], "use cpu (or none), cuda or tpu"),
        ],
    )
    def test_bad_options(
        self, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["doctor", "--device-report", str(tmp_path / "r.json"), *options]) == 2
        found = capsys.readouterr()
        assert message in found.err and found.err.count("\n") == 1 and not list(tmp_path.iterdir())

    def test_an_old_report_is_kept(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "r.json").write_text("mine")
        assert main(["doctor", "--device-report", str(tmp_path / "r.json")]) == 2
        assert "overwrite it with --force" in capsys.readouterr().err and (tmp_path / "r.json").read_text() == "mine"

    def test_steps_need_a_report(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--steps", "roofs"]) == 2
        assert "--steps needs --device-report" in capsys.readouterr().err

    @pytest.mark.slow
    def test_the_command_leaves_the_device_to_its_steps(self) -> None:
        imports = "import minillama.cli.output.device_report_table, minillama.env as env"
        done = subprocess.run([sys.executable, "-c", f"{imports}; print(env.backend_started())"], capture_output=True)
        assert done.stdout.strip() == b"False", done.stderr

    @pytest.mark.slow
    def test_the_small_form(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "r.json"
        assert main(["doctor", "--device-report", str(path), "--device", "cpu"]) == 0
        report, found = json.loads(path.read_text()), capsys.readouterr()
        names = [step.name for step in steps_of(REDUCED)]
        assert list(dict.fromkeys(row["step"] for row in report["rows"])) == [n for n in names if n != "half-offload"]
        assert [entry["step"] for entry in report["not_run"]] == ["half-offload"]
        assert found.out.count("\n| ") >= len(report["rows"]) and {row["jax"] for row in report["rows"]} == {
            jax.__version__
        }
