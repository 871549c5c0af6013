"""`minillama convert`: a Hugging Face folder to a GGUF file (llama.cpp: convert_hf_to_gguf.py)."""

import argparse
import sys
from typing import TYPE_CHECKING

from minillama.cli.arguments.option import Option, OtherOption, add_options, add_other_options
from minillama.cli.output.output_file import check_output_file
from minillama.cli.output.terminal import note
from minillama.printable_text import printable

if TYPE_CHECKING:
    from minillama.convert import ConversionPlan
    from minillama.gguf.header_writer import TensorSpec

DESCRIPTION = """\
Write the model in a Hugging Face folder as a GGUF file, with the tensors and the metadata of llama.cpp's converter. The
folder has config.json, model.safetensors (or several and their index), and tokenizer.json or tokenizer.model. Nothing
in it is executed. Quantise the result with `minillama quantize`.
"""
# A fixed listing, because the help must not import numpy; a test compares it with the table.
_LISTING = """\
architectures, as GGUF names them:
  chatglm cohere2 deepseek2 ernie4_5 ernie4_5-moe exaone4 gemma gemma2 gemma3 gemma4 glm4 glm4moe gpt-oss granite
  granitehybrid granitemoe hunyuan-dense lfm2 lfm2moe llama minicpm minimax-m2 mistral3 nemotron_h nemotron_h_moe olmo2
  phi2 phi3 qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe seed_oss smollm3
  starcoder2
"""
_OPTIONS = (
    Option(("-o", "--outfile"), "output file; {ftype} in its name becomes the type (default: in DIR, with the model's "
           "name and type)", value="FILE"),
    Option(("--outtype",), "f32, f16, bf16, q8_0, or auto for the 16-bit type of the folder (default: auto)", str,
           "auto", value="TYPE"),
    Option(("--model-name",), "name of the model, in place of the folder's", value="NAME"),
    Option(("--pretokenizer",), "name of the pre-tokenizer, for a tokenizer.json with an unknown one", value="NAME"),
    Option(("--vocab-only",), "write the metadata and the vocabulary only", None, False),
    Option(("--dry-run",), "show tensors, types and sizes, write nothing", None, False),
    Option(("--force",), "overwrite the output file", None, False),
)  # fmt: skip
_SPLIT = "the output is a single file; leave it out"
_TEXT_ONLY = "only the text model is written; leave it out"
_OTHERS = (
    OtherOption("--use-temp-file", None, "tensors are never all in memory"),
    OtherOption("--no-lazy", None, "tensors are always read one after the other"),
    OtherOption("--verbose", None, "use --dry-run for a line per tensor"),
    OtherOption("--bigendian", None, "the file is little-endian; leave it out", refused=True),
    OtherOption("--split-max-tensors", str, _SPLIT, refused=True),
    OtherOption("--split-max-size", str, _SPLIT, refused=True),
    OtherOption("--no-tensor-first-split", None, _SPLIT, refused=True),
    OtherOption("--metadata", str, "keys come from the folder; change them with minillama quantize --override-kv",
                refused=True),
    OtherOption("--print-supported-models", None, "minillama convert --help lists them", refused=True),
    OtherOption("--remote", None, "download the folder first, with: hf download USER/MODEL --local-dir DIR",
                refused=True),
    OtherOption("--mmproj", None, _TEXT_ONLY, refused=True),
    OtherOption("--mtp", None, "the whole model is written; leave it out", refused=True),
    OtherOption("--no-nextn --no-mtp", None, "layers of multi-token prediction are kept; leave it out", refused=True),
    OtherOption("--dspark", None, "draft models are not supported; leave it out", refused=True),
    OtherOption("--mistral-format", None, "use the files model*.safetensors of the folder; leave it out", refused=True),
    OtherOption("--disable-mistral-community-chat-template", None, "the folder's template is used; leave it out",
                refused=True),
    OtherOption("--sentence-transformers-dense-modules", None, "embedding models are not supported; leave it out",
                refused=True),
    OtherOption("--fuse-gate-up-exps", None, "tensors stay apart; leave it out", refused=True),
    OtherOption("--fuse-qkv", None, "tensors stay apart; leave it out", refused=True),
    OtherOption("--fp8-as-q8", None, "use --outtype q8_0", refused=True),
    OtherOption("--target-model-dir", str, "draft models are not supported; leave it out", refused=True),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "convert", help="convert a Hugging Face folder to a GGUF file", description=f"{DESCRIPTION}\n{_LISTING}"
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the model")
    add_options(parser, "how", _OPTIONS)
    add_other_options(parser, _OTHERS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from minillama.convert import plan_folder, write_plan
    from minillama.convert.gguf_output import output_path

    plan = plan_folder(
        args.folder, args.outtype, name=args.model_name, pretokenizer=args.pretokenizer, vocabulary_only=args.vocab_only
    )
    path = output_path(plan, args.outfile)
    _show_plan(plan, each=args.dry_run)
    if args.dry_run:
        print(path)
        return 0
    check_output_file(path, force=args.force, option="with -o")
    from tqdm import tqdm

    with tqdm(
        desc=printable(path.name), total=plan.nbytes, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr,
        leave=False, disable=None,
    ) as bar:  # fmt: skip

        def show(tensor: "TensorSpec", count: int) -> None:
            bar.update(count)

        write_plan(plan, path, show)
    print(path)
    return 0


def _show_plan(plan: "ConversionPlan", *, each: bool) -> None:
    from minillama.gguf.header_writer import dimensions

    for tensor in plan.tensors if each else ():
        sizes = ", ".join(map(str, dimensions(tensor.shape)))
        note(f"{printable(tensor.name):<36} {tensor.type.name:<6} [{sizes}]")
    note(f"{plan.architecture}: {len(plan.tensors)} tensors, {plan.nbytes / 2**20:.2f} MiB, {plan.output.value}")
