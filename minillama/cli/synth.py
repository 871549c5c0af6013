"""`minillama synth`: write a model with random weights, to measure without a download."""

import argparse
import sys
from pathlib import Path

from minillama.cli.arguments.values import integer
from minillama.cli.output.output_file import check_output_file
from minillama.errors import OptionError
from minillama.printable_text import printable

DESCRIPTION = """\
Write a GGUF file with random weights and the exact shape of a real model. Size, speed and memory usage are the same;
the generated text is noise. llama.cpp loads the file too. tiny-ARCH is a small model of any architecture.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "synth", help="write a model with random weights", description=f"{DESCRIPTION}\n{_LISTING}"
    )
    parser.add_argument("shape", metavar="SHAPE", help="one of the shapes above")
    parser.add_argument("output", nargs="?", default=argparse.SUPPRESS, metavar="FILE", help="output file")
    parser.add_argument(
        "--type", metavar="TYPE", help="type, named as in llama-quantize (default: Q4_0; gpt-oss: MXFP4_MOE)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the same (default: SHAPE-TYPE.gguf in the current folder)"
    )
    parser.add_argument(
        "-s", "--seed", type=integer, default=0, metavar="N", help="seed of the random weights (default: 0)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the output file")
    parser.set_defaults(run=run)


# A fixed listing, because the help must not import numpy; a test compares it with the shapes.
_LISTING = """\
shapes:
  tinyllama-1.1b   TinyLlama 1.1B Chat     1.10 B parameters, 22 layers of 2048
  llama-3.2-1b     Llama 3.2 1B Instruct   1.24 B parameters, 16 layers of 2048
  qwen2.5-0.5b     Qwen2.5 0.5B Instruct   494.03 M parameters, 24 layers of 896
  llama-2-7b       Llama 2 7B Chat         6.74 B parameters, 32 layers of 4096
  qwen3.5-0.8b     Qwen3.5 0.8B            752.39 M parameters, 24 layers of 1024
  glm-4.7-flash-8l GLM-4.7-Flash, 8 of 47 layers 5.17 B parameters, 8 layers of 2048
  gpt-oss-20b-4l   gpt-oss-20b, 4 of 24 layers 4.45 B parameters, 4 layers of 2880
  tiny             Tiny                    1.44 M parameters, 2 layers of 256
  tiny-ARCH        a small model of one of these architectures, with all its kinds of layers and tensors:
    llama mistral3 smollm3 qwen2 qwen3 qwen2vl qwen3vl qwen3vlmoe qwen2moe qwen3moe qwen3next qwen35 qwen35moe
    chatglm glm4 glm4moe gemma gemma2 gemma3 gemma4 phi2 phi3 granite granitemoe granitehybrid nemotron_h lfm2
    lfm2moe minicpm ernie4_5 ernie4_5-moe olmo2 hunyuan-dense seed_oss exaone4 cohere2 starcoder2 gpt-oss deepseek2
    minimax-m2
types:
  F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ4_NL IQ4_XS
  IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M TQ1_0 TQ2_0 NVFP4 MXFP4_MOE
"""


def run(args: argparse.Namespace) -> int:
    from minillama.gguf.quantisation_mixes import Mix
    from minillama.random_models.known_shapes import shape_named
    from minillama.random_models.model_writer import write_random_model

    shape = shape_named(args.shape)
    mix = Mix.named(args.type or shape.file_type)
    if args.seed < 0:
        raise OptionError(f"--seed {args.seed}: must be 0 or more")
    path = Path(args.output or f"{shape.name}-{mix.name}.gguf")
    check_output_file(path, force=args.force, option="with -o")

    from tqdm import tqdm

    with tqdm(
        desc=printable(path.name),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        file=sys.stderr,
        leave=False,
        disable=None,
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_random_model(path, shape, mix.name, seed=args.seed, progress=show)
    print(path)
    return 0
