"""llama.cpp options that minillama accepts without acting on them, and says so; or refuses, and says why.

Accepted are those that change only speed or memory: a script keeps working. Refused are those that would change the
text: a wrong answer is worse than none. What is planned is in the README.
"""

import argparse
import logging
from dataclasses import dataclass

from minillama.cli.arguments.parser import Parser
from minillama.errors import UnsupportedError

logger = logging.getLogger("minillama")


@dataclass(frozen=True)
class Foreign:
    """An option of llama.cpp: its names, whether it takes a value, and the one line to say about it."""

    names: tuple[str, ...]
    takes_value: bool
    answer: str
    silent_values: tuple[str, ...] = ()  # values that ask for what minillama does anyway


_XLA = "XLA decides this itself"
_ROPE = "the model file says how its positions are encoded; overriding that has not arrived yet"

ACCEPTED = (
    Foreign(("-fa", "--flash-attn"), True, "attention always goes tile by tile", ("on", "auto", "1")),
    Foreign(("--warmup",), False, ""),
    Foreign(("--no-warmup",), False, ""),  # compiling is timed apart from the rest
    Foreign(("--jinja",), False, ""),
    Foreign(("--no-jinja",), False, "chat templates are always rendered by Jinja"),
    Foreign(("--simple-io",), False, ""),
    Foreign(("-np", "--parallel"), True, "one answer at a time", ("1", "-1")),
    Foreign(("-cb", "--cont-batching"), False, "one answer at a time"),
    Foreign(("-fit", "--fit"), True, "the model is not fitted to memory; give -c or -ngl", ("off",)),
    Foreign(("-nr", "--no-repack"), False, _XLA),
    Foreign(("--repack",), False, _XLA),
    Foreign(("-kvo", "--kv-offload"), False, _XLA),
    Foreign(("-nkvo", "--no-kv-offload"), False, _XLA),
    Foreign(("--op-offload",), False, _XLA),
    Foreign(("--no-op-offload",), False, _XLA),
    Foreign(("--no-host",), False, _XLA),
    Foreign(("--numa",), True, "use numactl outside"),
    Foreign(("--prio",), True, "use nice outside", ("0",)),
    Foreign(("--poll",), True, _XLA),
    Foreign(("-C", "--cpu-mask"), True, "use -t, or taskset outside"),
    Foreign(("-Cr", "--cpu-range"), True, "use -t, or taskset outside"),
    Foreign(("--cpu-strict",), True, _XLA, ("0",)),
    Foreign(("-dt", "--defrag-thold"), True, "the cache has no holes"),
    Foreign(("-cmoe", "--cpu-moe"), False, "experts stay where their layer is"),
    Foreign(("-ncmoe", "--n-cpu-moe"), True, "experts stay where their layer is"),
    Foreign(("-lv", "--verbosity", "--log-verbosity"), True, "use -v or --log-disable", ("3",)),
)

REFUSED = (
    Foreign(("--lora",), True, "LoRA adapters have not arrived yet; merge the adapter into the GGUF file"),
    Foreign(("--lora-scaled",), True, "LoRA adapters have not arrived yet; merge the adapter into the GGUF file"),
    Foreign(("--control-vector",), True, "control vectors are not supported"),
    Foreign(("--grammar",), True, "grammars have not arrived yet"),
    Foreign(("--grammar-file",), True, "grammars have not arrived yet"),
    Foreign(("-j", "--json-schema"), True, "JSON schemas have not arrived yet"),
    Foreign(("-jf", "--json-schema-file"), True, "JSON schemas have not arrived yet"),
    Foreign(("--prompt-cache",), True, "prompt caches on disk have not arrived yet"),
    Foreign(("-md", "--model-draft"), True, "speculative decoding has not arrived yet"),
    Foreign(("--adaptive-target",), True, "the adaptive-p sampler is not supported"),
    Foreign(("--rope-scaling",), True, _ROPE),
    Foreign(("--rope-scale",), True, _ROPE),
    Foreign(("--rope-freq-base",), True, _ROPE),
    Foreign(("--rope-freq-scale",), True, _ROPE),
    Foreign(("--override-kv",), True, "overriding metadata has not arrived yet"),
    Foreign(("-gan", "--grp-attn-n"), True, "self-extend is not supported"),
    Foreign(("-mu", "--model-url"), True, "download the file and name it with -m, or use -hf"),
    Foreign(("-mm", "--mmproj"), True, "images are not supported"),
    Foreign(("--image", "--audio", "--video"), True, "only text is supported"),
    Foreign(("-i", "--interactive"), False, "for a conversation use: minillama cli"),
    Foreign(("-if", "--interactive-first"), False, "for a conversation use: minillama cli"),
    Foreign(("--in-prefix",), True, "the chat template does this; see --chat-template"),
    Foreign(("--in-suffix",), True, "the chat template does this; see --chat-template"),
)


class _Foreign(argparse.Action):
    """Say the option's line, or raise it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | list[str] | None,
        option_string: str | None = None,
    ) -> None:
        foreign = next(foreign for foreign in ACCEPTED + REFUSED if option_string in foreign.names)
        if foreign in REFUSED:
            raise UnsupportedError(f"{option_string}: {foreign.answer}")
        if foreign.answer and values not in foreign.silent_values:
            shown = f"{option_string} {values}" if isinstance(values, str) else option_string
            logger.warning("%s has no effect: %s", shown, foreign.answer)


def add_foreign_options(parser: Parser) -> None:
    """Let the parser know llama.cpp's other options; they are not in the help."""
    for foreign in ACCEPTED + REFUSED:
        # Before October 2025 -fa was a switch.
        count = "?" if foreign.names[0] == "-fa" else None if foreign.takes_value else 0
        parser.add_argument(
            *foreign.names,
            action=_Foreign,
            nargs=count,
            const="on" if count == "?" else None,
            dest=f"foreign_{foreign.names[-1].lstrip('-')}",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
