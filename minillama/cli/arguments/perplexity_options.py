"""The options of `minillama perplexity`, named as in llama-perplexity."""

from dataclasses import replace

from minillama.cli.arguments import llama_options, refused_options
from minillama.cli.arguments.option import Option, without_effect
from minillama.cli.arguments.values import integer, integer_in

TEXT = (
    Option(("-p", "--prompt"), "the text", value="TEXT"),
    Option(("-f", "--file"), "file with the text or the tasks", value="FILE"),
    Option(("-bf", "--binary-file"), "file that is read without changes, such as binary tasks", value="FILE"),
    Option(("-e", "--escape"), r"process escapes \n \t \" \\ \xHH in -p (default: off)", None, False,
           off=("--no-escape",)),
)  # fmt: skip
PERPLEXITY = (
    Option(("--chunks",), "maximum number of windows; -1: all (default: -1)", integer, -1),
    Option(("--ppl-stride",), "distance of overlapping windows in tokens; 0: no overlap (default: 0)",
           integer_in(0), 0),
    Option(("--ppl-output-type",), "0: running line; 1: columns of token, PPL, mean nll and its error (default: 0)",
           integer_in(0, 1), 0),
    Option(("--kl-divergence-base", "--save-all-logits"),
           "file of log-probabilities to write, or with --kl-divergence to read", value="FILE"),
    Option(("--kl-divergence",), "compare with the log-probabilities in the base file", None, False),
)  # fmt: skip
TASKS = (
    Option(("--hellaswag",), "score HellaSwag tasks in the file of -f", None, False),
    Option(("--hellaswag-tasks",), "number of tasks, selected at random (default: 400)", integer, 400),
    Option(("--winogrande",), "score Winogrande tasks in the file of -f", None, False),
    Option(("--winogrande-tasks",), "number of tasks, selected at random; 0: all (default: 0)", integer, 0),
    Option(("--multiple-choice",), "score the tasks in llama.cpp's binary file of -bf", None, False),
    Option(("--multiple-choice-tasks",), "number of tasks, selected at random; 0: all (default: 0)", integer, 0),
)  # fmt: skip
CONTEXT = tuple(
    replace(option, default=512, meaning="tokens per window (default: 512)") if option.dest == "ctx_size" else option
    for option in llama_options.CONTEXT
    if option.dest in ("ctx_size", "batch_size", "ubatch_size")
)
OUTPUT = tuple(option for option in llama_options.OUTPUT if option.dest != "color")
_GENERATION = ("predict", "ignore_eos", "keep", "context_shift")
UNUSED = without_effect(
    (
        *llama_options.SAMPLING,
        *llama_options.GRAMMAR,
        *refused_options.GENERATION,
        *(o for o in llama_options.GENERATION + llama_options.CONTEXT if o.dest in _GENERATION),
    ),
    "no text is generated",
)
