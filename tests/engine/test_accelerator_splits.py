"""Models that devices share lower and compile for several GPUs: partial offload, layers, tensor parallel.

A program runs on one platform. With partial offload each part of a pipeline is a program of its own, so the parts are
lowered one by one, those of the processor for the processor.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from device_processes import Check
from device_under_test import EXACT, LAYERS, open_on_device, write_model
from gguf import GGMLQuantizationType as Type
from split_programs import (
    CUSTOM_CALL,
    collectives_of,
    in_place_on,
    lower_sharded,
    parts_of_a_step,
)
from test_accelerators import python_with
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.accelerators.program_arguments import Sizes
from minillama.engine.backends.programs import text_programs
from minillama.kernels.target_platform import traced_for

BOUNDS = json.loads(Path(__file__).with_name("split_bounds.json").read_text())
IDS = [5, 17, 250, 3, 99, 41]
PLATFORMS = ("cuda", "tpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m.gguf", "Q4_0")


def kernels_of_the_processor(text: str) -> set[str]:
    return {call for call in CUSTOM_CALL.findall(text) if call.startswith("minillama")}


def check_partial_offload(path: Path, layers: int) -> None:
    """The parts of both platforms; the kernels are in those of the processor, and in no other."""
    with in_place_on(1):
        llm = open_on_device(path, layers + 1, ctx_size=256)
        parts = parts_of_a_step(llm)
    host, device = jax.devices()[:2]
    stages = [part.device for part in parts if part.name == "_run_stage"]
    assert stages == [host, device] and parts[0].device == host and parts[-1].device == device
    expected = ["_embed", "_run_stage", "_run_stage", "_output_norm", "_sample"]
    assert [part.name for part in parts] == expected
    with traced_for("gpu"):
        for part in parts:
            for platform in ("cpu",) if part.device == host else PLATFORMS:
                text = part.lower(platform).as_text()
                calls = kernels_of_the_processor(text)
                assert bool(calls) == (part.device == host), (part.name, platform, calls)
                assert not collectives_of(text)


@pytest.mark.parametrize("family", ["llama", "qwen3moe", "qwen35"])  # dense, experts, recurrent
def test_partial_offload(apart: Check, tmp_path: Path, family: str) -> None:
    apart(check_partial_offload, write_tiny(tmp_path / "m.gguf", family, Type.Q8_0), 1)


def check_numbers_of_partial_offload(path: Path) -> None:
    """Kernels on the processor round activations to 8 bits; the other layers do not."""
    with in_place_on(1):
        half, whole = (open_on_device(path, layers, ctx_size=256, **EXACT) for layers in (LAYERS // 2 + 1, None))
        difference = np.abs(half.logits(IDS) - whole.logits(IDS)).max() / whole.logits(IDS).std()
    assert 0 < difference < 0.1


def test_numbers_of_partial_offload(apart: Check, model: Path) -> None:
    apart(check_numbers_of_partial_offload, model)


def check_layers(path: Path, count: int) -> None:
    """One program for each device, which sends nothing inside."""
    with in_place_on(0):
        shares = [1.0] * count + [0.0] * (len(jax.devices()) - count)
        llm = ml.load(path, split_mode="layer", tensor_split=shares, ctx_size=256, progress=False)
        parts = parts_of_a_step(llm)
    devices = [part.device.id for part in parts]  # the last one may have the head only
    assert devices == sorted(devices) and set(devices) == set(range(count))
    with traced_for("gpu"):
        for part in parts:
            for platform in PLATFORMS:
                text = part.lower(platform).as_text()
                assert not kernels_of_the_processor(text) and not collectives_of(text)


@pytest.mark.parametrize("count", [2, 4])
def test_layers_over_devices(apart: Check, model: Path, count: int) -> None:
    apart(check_layers, model, count)


def lowered_collectives(path: Path, count: int) -> dict[str, dict[str, int]]:
    """The collectives of a prompt and of a step by program, as they are lowered for CUDA; the same for TPUs."""
    found = {}
    with traced_for("gpu"):
        backend: Any = ml.load(path, tensor_parallel=count, ctx_size=256, progress=False).backend
        for program in (text_programs.generate, text_programs.prefill):
            texts = [lower_sharded(backend, program, Sizes(1, 16, 256), name).as_text() for name in PLATFORMS]
            assert not any(map(kernels_of_the_processor, texts))
            one, other = map(collectives_of, texts)
            assert one == other
            found[program.name] = one
    return found


@pytest.mark.parametrize("count", [2, 4])
def test_collectives_of_tensor_parallel(apart: Check, model: Path, count: int) -> None:
    """Twice a layer and once for the table, as on processors (`test_tensor_parallel.py`); and once for the token."""
    found = apart(lowered_collectives, model, count)
    sums = 2 * LAYERS + 1
    assert found == {"generate": {"all_reduce": sums, "all_gather": 1}, "prefill": {"all_reduce": sums}}


@pytest.mark.slow
@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: f"{bounds['devices']} H200")
def test_compiled_for_several_gpus(model: Path, bounds: dict[str, Any]) -> None:
    """XLA combines or splits none of the collectives, and adds no kernel, loop or graph to the parts of a pipeline."""
    helpers = Path(__file__).parents[1] / "helpers"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    paths = os.pathsep.join([str(helpers.parents[1]), str(helpers)])
    done = subprocess.run(
        [python_with("cuda"), str(helpers / "split_programs.py"), str(model), str(bounds["devices"])],
        capture_output=True, text=True, env={**environment, "PYTHONPATH": paths}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for way in ("tensor", "layer"):
        assert list(found[way]) == list(bounds[way])
        for name, limits in bounds[way].items():
            assert set(found[way][name]) == set(limits), f"{name}: other kinds of collectives: {found[way][name]}"
            worse = {what: found[way][name][what] for what, limit in limits.items() if found[way][name][what] > limit}
            assert not worse, f"{name}: {worse} exceed {limits}"
