"""Programs lower for GPUs and TPUs on a machine without one, and what XLA makes of them there stays within bounds."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import pytest
from device_processes import Check
from gguf import GGMLQuantizationType as Type
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.accelerators.compiled_counts import counts_of_instructions, counts_of_thunks
from minillama.engine.accelerators.model_shapes import ModelShapes, file_of_shape, shapes_of_model
from minillama.engine.accelerators.program_arguments import Sizes, program_arguments
from minillama.engine.accelerators.report import CASES, depths, row, step_seconds
from minillama.engine.accelerators.targets import TARGETS, fitting_package, is_installed
from minillama.engine.backends import local, tensor_parallel
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Kind
from minillama.engine.backends.programs.program_table import ALL_PROGRAMS
from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.kernels.target_platform import target_platform, traced_for
from minillama.random_models.known_shapes import shape_named
from minillama.sampling import Sampling

HALF = CacheTypes(CacheType.F16, CacheType.F16)
FAMILIES = ("llama", "qwen3moe", "qwen35")  # dense, experts, recurrent
USUAL = ("prefill", "generate", "hidden", "nll", "start")
CUSTOM_CALL = re.compile(r"custom_call @([\w$.]+)")
SHARDING = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "xla.sdy.FuncResultSharding"}
BOUNDS = json.loads((Path(__file__).with_name("accelerator_bounds.json")).read_text())


def test_a_missing_compiler_is_named_with_its_version() -> None:
    version = jax.__version__
    assert fitting_package(TARGETS["cuda"]) == f"jax-cuda13-pjrt=={version}"
    assert re.fullmatch(r"libtpu==[\d.]+\*?", fitting_package(TARGETS["tpu"]))
    text = (Path(__file__).parents[2] / "docs" / "accelerators.md").read_text()
    if f"for jax {version}" in text:  # the version that the page is written for
        assert fitting_package(TARGETS["tpu"]) in text


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[None]:
    """Trace as on a GPU; JAX's traces of other tests are forgotten once, not in every test."""
    with traced_for("gpu"):
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def shapes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, on_gpu: None) -> ModelShapes:
    path = write_tiny(tmp_path_factory.mktemp("model") / "m.gguf", request.param, Type.Q8_0)
    return shapes_of_model(open_gguf(path), TARGETS["cuda"], 64)


def lowered_texts(model: ModelShapes, name: str, sizes: Sizes) -> list[str]:
    traced = model.trace(ALL_PROGRAMS[name], sizes, HALF, Sampling())
    return [traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cuda", "tpu")]


def traced_flat(function: Callable[..., Any], args: Sequence[Any]) -> jax.stages.Traced:
    """A function of arrays traced; trees of other things than arrays would be invalid caches."""
    leaves, structure = jax.tree.flatten(args)
    return jax.jit(lambda leaves: jax.tree.leaves(function(*jax.tree.unflatten(structure, leaves)))).trace(leaves)


def calls_of_the_processor(path: Path) -> set[str]:
    """Custom calls of a prompt's program on the devices of this process."""
    backend: Any = ml.load(path, progress=False).backend
    args = program_arguments(text_programs.prefill, backend, Sizes(1, 16, 64), HALF, Sampling())
    function = partial(local._compiled(text_programs.prefill).function, backend._packed, backend.config)
    return set(CUSTOM_CALL.findall(traced_flat(function, args).lower().as_text()))


class TestLowering:
    @pytest.mark.parametrize("batch", [1, 8])
    @pytest.mark.parametrize("name", USUAL)
    def test_every_program_of_a_text(self, shapes: ModelShapes, name: str, batch: int) -> None:
        for text in lowered_texts(shapes, name, Sizes(batch, 16, 64)):
            assert f"@jit_{name}" in text and not CUSTOM_CALL.findall(text)

    @pytest.mark.parametrize("name", sorted(set(ALL_PROGRAMS) - set(USUAL)))
    def test_every_other_program(self, shapes: ModelShapes, name: str) -> None:
        for text in lowered_texts(shapes, name, Sizes(2, 16, 64)):
            assert f"@jit_{name}" in text and not CUSTOM_CALL.findall(text)

    @pytest.mark.parametrize(("capacity", "loops"), [(4096, 0), (32_768, 1)])
    def test_a_step_has_no_loop_over_a_cache_of_usual_size(
        self, on_gpu: None, tmp_path: Path, capacity: int, loops: int
    ) -> None:
        """A GPU's host would wait for its end in every layer; the layers of this model share one trace."""
        model = shapes_of_model(open_gguf(write_tiny(tmp_path / "m.gguf", "llama")), TARGETS["cuda"], capacity)
        text = lowered_texts(model, "generate", Sizes(1, 1, capacity))[0]
        assert text.count("stablehlo.while") == loops

    def test_the_processors_own_calls_would_be_seen(self, apart: Check, tmp_path: Path) -> None:
        found = apart(calls_of_the_processor, write_tiny(tmp_path / "m.gguf", "llama", Type.Q8_0))
        assert {"minillama_product", "minillama_rows"} <= found

    def test_no_weight_is_read(self, on_gpu: None) -> None:
        file = file_of_shape(shape_named("llama-2-7b"), "Q4_0")
        found = shapes_of_model(file, TARGETS["cuda"], 512)
        assert found.file_bytes == file.nbytes > 3.8e9 and 0.99 < found.held_bytes / found.file_bytes < 1.02
        table = file.tensors["token_embd.weight"].nbytes  # a step reads one row of it
        assert abs(found.held_bytes - found.read_bytes - table) < 0.3 * table


def lower_sharded(path: Path) -> list[tuple[str, str]]:
    """Name and text of programs over four devices; runs in a process that has them."""
    with traced_for("gpu"):
        backend: Any = ml.load(path, tensor_parallel=4, ctx_size=256, progress=False).backend
        texts = []
        for name in USUAL:
            program = ALL_PROGRAMS[name]
            args = program_arguments(program, backend, Sizes(1, 16, 256), HALF, Sampling())
            static = {place: args[place] for place in program.positions(Kind.STATIC)}

            def run(params: Any, *args: Any, program: Any = program, static: Any = static) -> Any:
                given = [static.get(place, arg) for place, arg in enumerate(args)]
                return tensor_parallel._sharded(program, backend.layout, params, given)

            arrays = [None if place in static else arg for place, arg in enumerate(args)]
            traced = traced_flat(run, (backend.params, *arrays))
            texts += [(name, traced.lower(lowering_platforms=(found,)).as_text()) for found in ("cuda", "tpu")]
    return texts


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Type.F32, Type.F16], ids=lambda kind: kind.name)
def test_sharded_programs(apart: Check, tmp_path: Path, family: str, kind: Type) -> None:
    texts = apart(lower_sharded, write_tiny(tmp_path / "m.gguf", family, kind, feed=512))
    assert len(texts) == 2 * len(USUAL)
    for name, text in texts:
        assert set(CUSTOM_CALL.findall(text)) <= SHARDING
        assert ("stablehlo.all_reduce" in text) == (name in ("prefill", "generate", "hidden"))


class TestTarget:
    def test_is_that_of_the_devices_otherwise(self) -> None:
        before = target_platform()
        with traced_for("tpu"):
            assert target_platform() == "tpu"
            with pytest.raises(KeyError), traced_for("gpu"):
                raise KeyError
            assert target_platform() == "tpu"
        assert target_platform() == before

    def test_traces_of_another_platform_are_not_used(self, apart: Check, tmp_path: Path) -> None:
        apart(check_traces, write_tiny(tmp_path / "m.gguf", "llama"))


def check_traces(path: Path) -> None:
    llm = ml.load(path, progress=False)
    before = llm.logits([5, 6, 7])
    shapes = shapes_of_model(llm.file, TARGETS["tpu"], 64)
    assert not CUSTOM_CALL.findall(shapes.lower(text_programs.hidden, Sizes(1, 3, 64), HALF, Sampling()).as_text())
    assert (llm.logits([5, 6, 7]) == before).all()


THUNKS = """\
000: kCommandBuffer [source       | next=018 (1)]
    001: kCopy         [source       | sink        ] kCopy
    007: kCustomKernel [prev=006 (1) | sink        ] wrapped_transpose grid: [1, 1, 1] threads: [1, 1, 1]
018: kWhile         [prev=000 (1) | next=000 (1)]
condition:
    019: kCustomKernel [source | sink] wrapped_compare grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    000: kCommandBuffer [source | sink]
        020: kCustomKernel [source       | sink        ] gemm_fusion_dot grid: [64, 1, 1] threads: [64, 1, 1]
"""
INSTRUCTIONS = """\
HloModule jit_f, is_scheduled=true

%body.1 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %t = f32[4]{0} transpose(%p), dimensions={0}
}

%apart (p.1: f32[4]) -> f32[4] {
  ROOT %a = f32[4]{0} add(%p.1, %p.1)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %f = f32[4]{0} fusion(%x), kind=kLoop, calls=%apart
  ROOT %w = f32[4]{0} while(%f), condition=%cond, body=%body.1
}
"""


class TestCounts:
    def test_of_thunks(self) -> None:
        found = counts_of_thunks(THUNKS, 7)
        assert (found.kernels, found.loops, found.graphs, found.transposes, found.temporaries) == (3, 1, 2, 1, 7)

    def test_of_instructions(self) -> None:
        found = counts_of_instructions(INSTRUCTIONS, 7, 9)
        assert (found.kernels, found.loops, found.graphs, found.transposes, found.accessed) == (2, 1, 1, 1, 9)

    def test_layers_that_were_not_compiled(self, on_gpu: None) -> None:
        file = file_of_shape(shape_named("llama-2-7b"), "Q4_0")
        whole, *fewer = (shapes_of_model(file, TARGETS["cuda"], 512, layers) for layers in (None, 2, 4))
        assert depths(whole.config) == (2, 4)
        counts = [counts_of_thunks(THUNKS * layers, 100) for layers in (2, 4)]
        found = row(CASES[0], whole, list(zip(fewer, counts, strict=True)))
        assert (found.kernels, found.a_layer, found.loops, found.temporaries) == (96, 3, 32, 100)
        seconds = step_seconds(whole, counts_of_thunks(THUNKS * 32, 100))
        assert found.tokens_per_second == pytest.approx(1 / seconds)
        assert seconds == pytest.approx(whole.read_bytes / 2.15e12 + 96 * 1.5e-6 + 32 * 19e-6)


def python_with(target: str) -> str:
    """An interpreter that has the compiler for a target; skips the test where there is none.

    MINILLAMA_AOT_PYTHON names one with minillama's other dependencies.
    """
    if is_installed(TARGETS[target]):
        return sys.executable
    if (other := os.environ.get("MINILLAMA_AOT_PYTHON")) is not None:
        return other
    pytest.skip(f"{TARGETS[target].package} is not installed, and MINILLAMA_AOT_PYTHON names no Python that has it")


@pytest.mark.slow
@pytest.mark.parametrize("case", BOUNDS, ids=lambda case: f"{case['target']}-{case['shape']}-{case['type']}")
def test_compiled_programs_stay_within_bounds(case: dict[str, Any]) -> None:
    command = [python_with(case["target"]), "-m", "minillama", "doctor", "--json", "--aot", case["target"]]
    root = str(Path(ml.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [*command, "--shape", case["shape"], "--type", case["type"]],
        capture_output=True, text=True, env={**environment, "PYTHONPATH": root}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    programs = {found["program"]: found for found in json.loads(done.stdout)["programs"]}
    assert list(programs) == list(case["programs"])
    for name, bounds in case["programs"].items():
        worse = {what: programs[name][what] for what, bound in bounds.items() if programs[name][what] > bound}
        assert not worse, f"{name}: {worse} exceed {bounds}"
