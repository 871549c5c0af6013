"""Quantising files: llama-quantize's bytes, types, order and metadata; imatrices; nothing half-written; the command."""

import os
import re
import struct
from collections import Counter
from pathlib import Path

import gguf_bytes
import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from gguf_bytes import pair
from tiny_models import write_tiny

from minillama.cli import main
from minillama.errors import FormatError, OptionError, ResourceError, UnsupportedError
from minillama.gguf import TensorType, dequantize, open_gguf
from minillama.gguf.imatrix_file import ImportanceMatrix, read_imatrix
from minillama.gguf.quantisation_mixes import MIX_NAMES, Mix, ModelTraits, quantisable, tensor_type
from minillama.gguf.quantise import (
    MetadataOverride,
    QuantiseOptions,
    QuantiseStep,
    plan_file,
    quantise_file,
    quantise_rows,
)
from minillama.random_models.model_writer import write_random_model

ONE_THREAD = QuantiseOptions(threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("quantise") / "tiny.gguf", "tiny", "F32")


def contents(path: Path) -> dict[str, bytes]:
    return {name: tensor.data.tobytes() for name, tensor in open_gguf(path).tensors.items()}


def types(path: Path) -> dict[str, TensorType]:
    return {name: tensor.type for name, tensor in open_gguf(path).tensors.items()}


def eighths(file: Path) -> ImportanceMatrix:
    """Importances of every matrix in the layers; each eighth column matters most."""
    entries = {
        name: np.where(np.arange(tensor.shape[-1]) % 8 == 0, np.float32(100), np.float32(1))
        for name, tensor in open_gguf(file).tensors.items()
        if len(tensor.shape) == 2 and name.startswith("blk")
    }
    return ImportanceMatrix(entries, "im.gguf", ("text.txt",), 3)


def test_files_equal_those_of_llama_quantize(reference: Path, tmp_path: Path) -> None:
    paths = sorted((reference / "quant").glob("wide-*.gguf"))
    assert len(paths) == 14
    for path in paths:
        target = tmp_path / "mine.gguf"
        quantise_file(reference / "arch" / "wide.gguf", target, Mix.named(path.stem.removeprefix("wide-")))
        assert target.read_bytes() == path.read_bytes(), path.name


def test_a_trained_model_equals_that_of_llama_quantize(reference: Path, tmp_path: Path) -> None:
    real = reference / "real"
    for name in ("F16", "Q8_0", "Q4_0"):
        target = tmp_path / "mine.gguf"
        report = quantise_file(real / "stories260K.gguf", target, Mix.named(name))
        wanted = open_gguf(real / f"stories260K-{name}.gguf")
        assert contents(target) == contents(wanted.path)
        assert report.bits == pytest.approx(8 * wanted.nbytes / wanted.parameters)


@pytest.mark.parametrize("name", MIX_NAMES)
def test_every_mix(model: Path, tmp_path: Path, name: str) -> None:
    """Every tensor is what `quantise_rows` makes of it, and the types are those of a random model of that mix."""
    report = quantise_file(model, tmp_path / "a.gguf", Mix.named(name), ONE_THREAD)
    file, source = open_gguf(report.path), open_gguf(model)
    wanted = open_gguf(write_random_model(tmp_path / "b.gguf", "tiny", name))
    for tensor in file.tensors.values():
        assert tensor.type is wanted.tensors[tensor.name].type
        if tensor.type is not TensorType.F32:
            rows = quantise_rows(dequantize(source.tensors[tensor.name]), tensor.type)
            assert np.array_equal(tensor.data, rows)
    assert file.metadata["general.file_type"] == Mix.named(name).file_type
    assert file.nbytes == report.plan.bytes_after
    assert report.bits == pytest.approx(8 * file.nbytes / file.parameters)


def test_the_gguf_library_reads_the_same(model: Path, tmp_path: Path) -> None:
    target = quantise_file(model, tmp_path / "a.gguf", Mix.named("Q8_0"), ONE_THREAD).path
    theirs, ours = GGUFReader(target), open_gguf(target)
    assert {tensor.name: bytes(tensor.data) for tensor in theirs.tensors} == contents(target)
    source = open_gguf(model)
    new = ("general.quantization_version", "general.file_type")
    assert list(ours.metadata) == [key for key in source.metadata if key not in new] + list(new)
    for key, value in source.metadata.items():
        assert ours.kinds[key] == source.kinds[key]
        if key not in new:
            assert np.array_equal(ours.metadata[key], value)


def test_metadata_of_every_kind_is_kept(tmp_path: Path) -> None:
    pairs = [
        pair("general.architecture", 8, "llama"), pair("general.alignment", 4, 64), pair("split.no", 2, 0),
        *(pair(f"number.{kind}", kind, 7) for kind in (0, 1, 2, 3, 4, 5, 6, 10, 11, 12)),
        pair("truth", 7, True), pair("text", 8, b"caf\xe9"), pair("none", 9, (8, ())),
        pair("texts", 9, (8, ("a", b"\xff"))), pair("truths", 9, (7, (True, False))),
        pair("halves", 9, (6, (0.5, -0.5))),
    ]  # fmt: skip
    tensors = [gguf_bytes.tensor("b.weight", [32, 2], 0, 0), gguf_bytes.tensor("a.weight", [32, 1], 0, 256)]
    source = tmp_path / "a.gguf"
    source.write_bytes(gguf_bytes.build(pairs, tensors, bytes(256 + 128), alignment=64))
    target = quantise_file(source, tmp_path / "b.gguf", Mix.named("Q8_0"), ONE_THREAD).path
    new = [pair("general.quantization_version", 4, 2), pair("general.file_type", 4, 7)]
    kept = [each for each in pairs if not each.startswith(gguf_bytes.string("split.no"))]
    rows = [gguf_bytes.tensor("a.weight", [32], 0, 0), gguf_bytes.tensor("b.weight", [32, 2], 8, 128)]
    assert target.read_bytes() == gguf_bytes.build(kept + new, rows, bytes(256), alignment=64)


def test_options_choose_types(model: Path) -> None:
    file = open_gguf(model)

    def found(name: str, **options: object) -> dict[str, str]:
        steps = plan_file(file, Mix.named(name), QuantiseOptions(**options)).steps
        return {step.source.name: step.target.type.name for step in steps}

    mixed = found("Q4_K_M")
    assert mixed["output.weight"] == "Q6_K"
    assert Counter(found("Q4_K_M", pure=True).values()) == {"Q4_K": 16, "F32": 5}
    assert found("Q4_K_M", leave_output_tensor=True) == mixed | {"output.weight": "F32"}
    assert found("F16", output_tensor_type=TensorType.Q5_0)["output.weight"] == "Q5_0"
    assert found("Q4_K_M", token_embedding_type=TensorType.Q8_0) == mixed | {"token_embd.weight": "Q8_0"}
    pairs = ((r"blk\.1\.attn", TensorType.Q5_1), ("attn_q", TensorType.Q8_0))
    chosen = found("Q4_K_M", tensor_types=pairs)
    assert chosen["blk.1.attn_q.weight"] == "Q5_1"
    assert chosen["blk.0.attn_q.weight"] == "Q8_0"
    assert found("F16", tensor_types=pairs) == found("F16")
    assert set(found("F32").values()) == {"F32"}


def test_narrow_rows_fall_back(tmp_path: Path) -> None:
    file = open_gguf(write_tiny(tmp_path / "a.gguf", "qwen2"))  # rows of 64 and 96, the head is the embedding
    plan = plan_file(file, Mix.named("Q4_K_M"))
    found = {step.source.name: (step.preferred.name, step.target.type.name) for step in plan.steps}
    assert found["token_embd.weight"] == ("Q8_0", "Q8_0")
    assert found["blk.0.attn_q.weight"] == ("Q4_K", "Q5_0")
    assert found["blk.1.ffn_down.weight"] == ("Q6_K", "Q8_0")
    assert plan.fallbacks == sum(before != after for before, after in found.values()) > 10


# From `llama-quantize --dry-run` on models of 8 experts (the reference's mixtral) and of 80 layers.
def test_mixtral_and_70b() -> None:
    def eight(name: str, part: str) -> str:
        shape = (8, 256, 256) if part.endswith("exps") else (256, 256)
        traits = ModelTraits(layers=32, heads=32, kv_heads=8, tied=False, experts=8)
        return tensor_type(Mix.named(name), f"blk.5.{part}.weight", shape, traits).name

    parts = ("attn_k", "attn_v", "attn_output", "attn_q", "ffn_down_exps", "ffn_gate_exps")
    assert [eight("Q4_K_M", part) for part in parts] == ["Q8_0", "Q8_0", "Q5_K", "Q4_K", "Q4_K", "Q4_K"]
    assert [eight("Q6_K", part) for part in parts] == ["Q8_0", "Q8_0", "Q6_K", "Q6_K", "Q6_K", "Q6_K"]
    traits = ModelTraits(layers=80, heads=64, kv_heads=8, tied=False, size="70B")
    assert tensor_type(Mix.named("Q3_K_S"), "blk.9.attn_v.weight", (256, 256), traits) is TensorType.Q5_K
    assert tensor_type(Mix.named("Q3_K_S"), "blk.9.attn_k.weight", (256, 256), traits) is TensorType.Q3_K


def test_tensors_that_are_never_quantised() -> None:
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_gate_inp.weight", "position_embd.weight", "blk.0.attn_q.bias"):
        assert not quantisable(name, (256, 256))
    assert not quantisable("blk.0.attn_q.weight", (1, 256))
    assert quantisable("blk.0.ffn_up_exps.weight", (4, 256, 256))


def test_copy_and_requantising(model: Path, tmp_path: Path) -> None:
    copy = quantise_file(model, tmp_path / "copy.gguf", None, ONE_THREAD)
    assert contents(copy.path) == contents(model)
    small = quantise_file(model, tmp_path / "q8.gguf", Mix.named("Q8_0"), ONE_THREAD).path
    with pytest.raises(UnsupportedError, match=r"output\.weight is already Q8_0.*--allow-requantize"):
        quantise_file(small, tmp_path / "no.gguf", Mix.named("Q4_0"))
    again = quantise_file(small, tmp_path / "q4.gguf", Mix.named("Q4_0"), QuantiseOptions(allow_requantize=True)).path
    tensor = open_gguf(again).tensors["blk.0.attn_q.weight"]
    whole = dequantize(open_gguf(small).tensors["blk.0.attn_q.weight"])
    assert np.array_equal(tensor.data, quantise_rows(whole, TensorType.Q4_0))
    assert not (tmp_path / "no.gguf").exists()


def test_a_split_model_becomes_one_file(model: Path, tmp_path: Path) -> None:
    """The parts are made with the gguf library's writer."""
    file = open_gguf(model)
    names = list(file.tensors)
    for number, part in enumerate((names[:9], names[9:])):
        writer = GGUFWriter(tmp_path / f"m-{number + 1:05}-of-00002.gguf", "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(names))
        for name in part:
            writer.add_tensor(name, dequantize(file.tensors[name]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    joined = quantise_file(tmp_path / "m-00001-of-00002.gguf", tmp_path / "one.gguf", Mix.named("Q4_0")).path
    whole = quantise_file(model, tmp_path / "two.gguf", Mix.named("Q4_0")).path
    assert contents(joined) == contents(whole)
    assert not [key for key in open_gguf(joined).metadata if key.startswith("split.")]
    with pytest.raises(OptionError, match="is the source file"):
        quantise_file(tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf", None)


def test_importances_change_the_result(model: Path, tmp_path: Path) -> None:
    plain = open_gguf(quantise_file(model, tmp_path / "a.gguf", Mix.named("Q4_K_S"), ONE_THREAD).path)
    options = QuantiseOptions(importance=eighths(model), threads=1)
    weighed = open_gguf(quantise_file(model, tmp_path / "b.gguf", Mix.named("Q4_K_S"), options).path)
    name, source = "blk.0.ffn_up.weight", open_gguf(model)

    def error(file: object) -> float:
        return np.square(dequantize(file.tensors[name]) - dequantize(source.tensors[name]))[:, ::8].sum()

    assert error(weighed) < 0.9 * error(plain)
    assert np.array_equal(plain.tensors["output.weight"].data, weighed.tensors["output.weight"].data)
    assert {key: weighed.metadata[key] for key in list(weighed.metadata)[-4:]} == {
        "quantize.imatrix.file": "im.gguf",
        "quantize.imatrix.dataset": "text.txt",
        "quantize.imatrix.entries_count": 14,
        "quantize.imatrix.chunks_count": 3,
    }
    wrong = ImportanceMatrix({name: np.ones(7, np.float32)}, "im.gguf")
    with pytest.raises(FormatError, match=r"im\.gguf has 7 importances for blk\.0\.ffn_up\.weight, not 256"):
        quantise_file(model, tmp_path / "c.gguf", Mix.named("Q4_0"), QuantiseOptions(importance=wrong))


def test_each_expert_has_its_own_importances(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "a.gguf", "mixtral")
    name = "blk.1.ffn_up_exps.weight"
    tensor = open_gguf(source).tensors[name]
    experts, _, row = tensor.shape
    values = np.random.default_rng(0).random((experts, row)).astype(np.float32)
    options = QuantiseOptions(importance=ImportanceMatrix({name: values.reshape(-1)}, "im"), threads=2)
    done = open_gguf(quantise_file(source, tmp_path / "b.gguf", Mix.named("Q4_0"), options).path).tensors[name]
    for expert in range(experts):
        rows = quantise_rows(dequantize(tensor)[expert], TensorType.Q4_0, values[expert])
        assert np.array_equal(done.data[expert], rows)


def legacy(entries: dict[str, tuple[int, np.ndarray]], tail: bytes = b"") -> bytes:
    parts = [struct.pack("<i", len(entries))]
    for name, (calls, values) in entries.items():
        parts.append(struct.pack(f"<i{len(name)}sii", len(name), name.encode(), calls, len(values)))
        parts.append(values.astype("<f4").tobytes())
    return b"".join(parts) + tail


def test_both_formats_of_importances(tmp_path: Path) -> None:
    sums = np.array([[2, 4, 6], [5, 5, 5]], np.float32)
    path = tmp_path / "im.dat"
    path.write_bytes(legacy({"a": (2, sums[0]), "b": (0, sums[1])}, struct.pack("<ii4s", 7, 4, b"text")))
    old = read_imatrix(path)
    assert {name: values.tolist() for name, values in old.entries.items()} == {"a": [1, 2, 3], "b": [5, 5, 5]}
    assert (old.datasets, old.chunks, old.file) == (("text",), 7, str(path))
    path.write_bytes(legacy({"a": (2, sums[0])}))
    assert read_imatrix(path).chunks == 0

    writer = GGUFWriter(tmp_path / "im.gguf", "none")
    writer.add_array("imatrix.datasets", ["text"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    writer.add_tensor("a.in_sum2", sums)
    writer.add_tensor("a.counts", np.array([[2], [0]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    new = read_imatrix(tmp_path / "im.gguf")
    assert new.entries["a"].tolist() == [1, 2, 3, 1, 1, 1]
    assert (new.datasets, new.chunks) == (("text",), 7)
    assert set(old.filtered(("a",), ()).entries) == {"a"}
    assert set(old.filtered((), ("a",)).entries) == {"b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an importance matrix, or is truncated"),
        (struct.pack("<i", 0), "it has 0 entries"),
        (struct.pack("<ii", 1, 2**30), "name 0 ends after the file"),
        (struct.pack("<ii", 1, -5), "name 0 ends after the file"),
        (legacy({"a": (1, np.ones(4))})[:-1], "the values of a ends after the file"),
        (legacy({"a": (1, np.array([np.nan]))}), "the importances of a are not all finite"),
        (legacy({"a": (1, np.ones(0))}), "a has 0 importances"),
        (gguf_bytes.build([pair("general.architecture", 8, "llama")]), "imatrix.datasets is missing"),
    ],
)
def test_malformed_importances(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "im"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_imatrix(path)


def test_imatrix_without_entries(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"cannot read .*none"):
        read_imatrix(tmp_path / "none")


@pytest.mark.parametrize("name", ["Q4_K_M", "F32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_weights_are_an_error(tmp_path: Path, bad: float, name: str) -> None:
    source = write_tiny(tmp_path / "a.gguf", "llama")
    tensor = open_gguf(source).tensors["blk.1.attn_k.weight"]
    raw = bytearray(source.read_bytes())
    at = tensor.offset + 4 * (3 * tensor.shape[-1] + 5)
    raw[at : at + 4] = struct.pack("<f", bad)
    source.write_bytes(raw)
    message = rf"blk\.1\.attn_k\.weight has {bad} at column 5 of row 3; the model is damaged"
    with pytest.raises(FormatError, match=message):
        quantise_file(source, tmp_path / "b.gguf", Mix.named(name))
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_an_interrupted_or_failed_run_leaves_no_file(model: Path, tmp_path: Path) -> None:
    def interrupt(step: QuantiseStep, weights: int) -> None:
        assert list(tmp_path.glob(".a.gguf.*.tmp"))
        raise KeyboardInterrupt

    target = tmp_path / "a.gguf"
    target.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        quantise_file(model, target, Mix.named("Q8_0"), progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
    assert target.read_bytes() == b"before"
    with pytest.raises(ResourceError, match="no folder"):
        quantise_file(model, tmp_path / "none" / "a.gguf", Mix.named("Q8_0"))
    with pytest.raises(OptionError, match="is the source file"):
        quantise_file(model, model, Mix.named("Q8_0"))


def test_progress_counts_every_weight(model: Path, tmp_path: Path) -> None:
    done: Counter[str] = Counter()

    def count(step: QuantiseStep, weights: int) -> None:
        done[step.source.name] += weights

    report = quantise_file(model, tmp_path / "a.gguf", Mix.named("Q8_0"), progress=count)
    assert list(done) == [step.source.name for step in report.plan.steps]
    assert all(done[step.source.name] == step.source.size for step in report.plan.steps)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (QuantiseOptions(tensor_types=(("(", TensorType.Q8_0),)), OptionError, "not a regular expression"),
        (QuantiseOptions(output_tensor_type=TensorType.IQ2_XS), UnsupportedError, "cannot quantise to IQ2_XS"),
        (
            QuantiseOptions(overrides=(MetadataOverride("general.alignment", "u32", 7),)),
            OptionError,
            "leave it as it is",
        ),
    ],
)
def test_invalid_plans(model: Path, options: QuantiseOptions, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_file(open_gguf(model), Mix.named("Q4_0"), options)


def test_files_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_bytes.build([pair("general.architecture", 8, "llama")]))
    with pytest.raises(FormatError, match="contains no model"):
        plan_file(open_gguf(tmp_path / "a.gguf"), Mix.named("Q4_0"))


# The command.


def test_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", str(model), "a.gguf", "q4_k_m", "1"]) == 0
    caught = capsys.readouterr()
    assert caught.out == "a.gguf\n"
    lines = caught.err.splitlines()
    assert lines[1] == (  # as llama-quantize writes it
        "[   1/  21] output.weight                        - [   256,    512,      1,      1], type =    f32, "
        "converting to q6_K .. size =     0.50 MiB ->     0.10 MiB"
    )
    assert sum(line.startswith("[") for line in lines) == 21
    assert re.fullmatch(r"model size  =     5\.\d\d MiB \(32\.00 BPW\)", lines[-2])
    assert re.fullmatch(r"quant size  =     0\.\d\d MiB \(\d\.\d\d BPW\)", lines[-1])
    wanted = quantise_file(model, tmp_path / "b.gguf", Mix.named("Q4_K_M")).path.read_bytes()
    assert Path("a.gguf").read_bytes() == wanted
    assert main(["quantize", str(model), "a.gguf", "15"]) == 2
    assert "a.gguf exists; overwrite it with --force" in capsys.readouterr().err
    assert main(["quantize", "--force", str(model), "a.gguf", "15"]) == 0
    assert Path("a.gguf").read_bytes() == wanted


def test_command_names_the_file_itself(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "m.gguf"
    source.write_bytes(model.read_bytes())
    assert main(["quantize", str(source), "Q4_K"]) == 0
    assert main(["quantize", str(source), "copy"]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "ggml-model-Q4_K_M.gguf"),
        str(tmp_path / "ggml-model-COPY.gguf"),
    ]


def test_command_options(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    im, pairs, target = tmp_path / "im.dat", tmp_path / "pairs.txt", tmp_path / "a.gguf"
    im.write_bytes(legacy({"blk.0.ffn_up.weight": (1, np.ones(256)), "blk.0.attn_q.weight": (1, np.ones(256))}))
    pairs.write_text("attn_k=q5_0\nattn_v=Q5_1")
    words = ["quantize", "--imatrix", str(im), "--exclude-weights", "attn", "--tensor-type", "FFN_GATE=q8_0"]
    words += ["--tensor-type-file", str(pairs), "--token-embedding-type", "bf16", "--output-tensor-type", "f16"]
    words += ["--override-kv", "llama.context_length=int:-99", "--override-kv", "x.y=float:1.5"]
    words += ["--override-kv", "x.z=bool:true", "--override-kv", "general.name=str:a=b:c"]
    assert main([*words, str(model), str(target), "Q4_0"]) == 0
    err, file, found = capsys.readouterr().err, open_gguf(target), types(target)
    assert "blk.0.attn_q.weight is not in the importance matrix and is quantised without it" in err
    assert "blk.0.ffn_up.weight is not in the importance matrix" not in err
    assert file.metadata["quantize.imatrix.entries_count"] == 1
    picked = {
        "token_embd": "BF16", "output": "F16", "blk.0.ffn_gate": "Q8_0", "blk.0.attn_k": "Q5_0",
        "blk.0.attn_v": "Q5_1", "blk.0.attn_q": "Q4_0",
    }  # fmt: skip
    assert {name: found[f"{name}.weight"].name for name in picked} == picked
    overridden = {
        "llama.context_length": ("u32", 99),
        "x.y": ("f32", 1.5),
        "x.z": ("bool", True),
        "general.name": ("string", "a=b:c"),
    }
    assert {key: (file.kinds[key], file.metadata[key]) for key in overridden} == overridden


def test_command_dry_run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = write_tiny(tmp_path / "a.gguf", "qwen2")
    assert main(["quantize", "--dry-run", str(narrow), "Q4_K_M"]) == 0
    caught = capsys.readouterr()
    assert "converting to q5_0" in caught.err
    assert "(rows of 64 are not blocks of q4_K)" in caught.err
    assert re.search(r"warning: \d+ of \d+ tensors have rows too narrow", caught.err)
    assert caught.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: minillama quantize"),
        (["M"], "usage: minillama quantize"),
        (["M", "b.gguf"], "b.gguf is no type, and no type follows it"),
        (["M", "b.gguf", "Q9"], "unknown file type Q9; known: F32"),
        (["M", "iq2_xxs"], "cannot quantise to iq2_xxs: its types are only read; known: F32, F16"),
        (["M", "b.gguf", "NVFP4"], "cannot quantise to NVFP4: its types are only read; known: F32, F16"),
        (["M", "b.gguf", "Q4_0", "--tensor-type", "attn=tq1_0"], "--tensor-type tq1_0: no type to quantise to; known:"),
        (["M", "b.gguf", "Q4_0", "many"], "many: only a number of threads may follow the type"),
        (["M", "b.gguf", "Q4_0", "0"], "0: only a number of threads may follow the type"),
        (["M", "b.gguf", "Q4_0", "9" * 30], "only a number of threads may follow the type"),
        (["none.gguf", "b.gguf", "Q4_0"], "no file none.gguf"),
        (["M", ".", "Q4_0"], "is a folder; name a file in it"),
        (["M", "none/b.gguf", "Q4_0"], "no folder none"),
        (["M", "b.gguf", "Q4_0", "--keep-split"], "--keep-split: the output is a single file"),
        (["M", "b.gguf", "Q4_0", "--prune-layers", "1"], "--prune-layers: layers are not removed"),
        (
            ["M", "b.gguf", "Q4_0", "--tensor-type", "attn"],
            "--tensor-type attn: should be part of a name",
        ),
        (["M", "b.gguf", "Q4_0", "--tensor-type", "attn=q9"], "--tensor-type q9: no type to quantise to; known: F32"),
        (["M", "b.gguf", "Q4_0", "--output-tensor-type", "x"], "--output-tensor-type x: no type to quantise to"),
        (["M", "b.gguf", "Q4_0", "--override-kv", "a=int"], "should be KEY=TYPE:VALUE"),
        (["M", "b.gguf", "Q4_0", "--override-kv", "a=str:\udcff"], "--override-kv 'a=str:\\udcff': expected UTF-8"),
        (["M", "b.gguf", "Q4_0", "--override-kv", "a=int:x"], "x is no value of type int"),
        (["M", "b.gguf", "Q4_0", "--override-kv", "a=int:4294967296"], "is no value of type int"),
        (["M", "b.gguf", "Q4_0", "--override-kv", "a=bool:yes"], "yes is no value of type bool"),
        (["M", "b.gguf", "Q4_0", "--override-kv", f"a=str:{'x' * 128}"], "at most 127 bytes"),
        (["M", "b.gguf", "Q4_0", "--include-weights", "x"], "select from an --imatrix"),
        (["M", "b.gguf", "Q4_0", "--imatrix", "none"], "cannot read none"),
    ],
)
def test_command_refuses(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", *(str(model) if word == "M" else word for word in words)]) == 2
    caught = capsys.readouterr()
    assert message in caught.err
    assert len(caught.err.splitlines()) <= 2
    assert caught.out == ""
    assert not list(tmp_path.iterdir())


def test_source_that_becomes_shorter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A download that goes on while it is quantised: a line, and no half file."""
    source = tmp_path / "m.gguf"
    source.write_bytes(model.read_bytes())

    def plan_while_it_shrinks(*arguments: object) -> object:
        plan = plan_file(*arguments)
        os.truncate(source, 8192)
        return plan

    monkeypatch.setattr("minillama.gguf.quantise.file_quantiser.plan_file", plan_while_it_shrinks)
    assert main(["quantize", str(source), str(tmp_path / "a.gguf"), "Q4_0"]) == 2
    assert "m.gguf has become shorter since it was opened" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_command_interrupted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(piece: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr("minillama.gguf.quantise.file_quantiser._quantise_chunk", interrupt)
    assert main(["quantize", str(model), str(tmp_path / "a.gguf"), "Q4_0"]) == 130
    assert not list(tmp_path.iterdir())
