"""llama.cpp options that minillama ignores with a warning, or refuses with an error.

Options that change only speed or memory are ignored, so that scripts keep working. Options that would change the
output are refused. None of them is in the help. The README lists planned features.
"""

import argparse
import logging
import re
from dataclasses import dataclass
from typing import Any

from minillama.cli.arguments.parser import Parser
from minillama.errors import OptionError, UnsupportedError

logger = logging.getLogger("minillama")


@dataclass(frozen=True)
class Values:
    """The values that an option takes in one group of commands."""

    silent: tuple[str, ...] = ()  # values that match what minillama does: neither a warning nor an error
    pattern: str = ".*"  # regular expression of one value
    separator: str = ""  # between the values of a list; empty: a single value
    is_switch: bool = False  # the option takes no value


SWITCH = Values(is_switch=True)


@dataclass(frozen=True)
class IgnoredOption:
    """An option of llama.cpp without an effect here; no warning if the reason is empty."""

    names: tuple[str, ...]
    reason: str
    run: Values | None = None  # in `run`, `cli` and `perplexity`; None: not an option of these
    bench: Values | None = None  # in `bench`; None: not an option of llama-bench
    refused: bool = False


_XLA = "XLA decides this itself"
_ROPE = "the model file sets the position encoding; overriding it is not supported yet"
_CORES = "use -t, or taskset outside"
_EXPERTS = "experts stay on the device of their layer"
_CACHE = "the KV cache stays on the device of its layer"
_PACKING = "weights stay as they are in the file"
_FIT = "the model is not fitted to memory; give -c or -ngl"
_FIT_BENCH = "the model is not fitted to memory; give -ngl"
_ONE_ANSWER = "one answer at a time"
_LORA = "LoRA adapters are not supported yet; merge the adapter into the GGUF file"
_GRAMMAR = "grammars are not supported yet"
_SCHEMA = "JSON schemas are not supported yet"
_CHAT = "for a conversation use: minillama cli"
_TEMPLATE = "the chat template does this; see --chat-template"

_RANGE = r"-?[0-9]+(-[0-9]+([+*][0-9]+)?)?"
_BIT = Values(("0",), "0|1", ",")

OPTIONS = (
    IgnoredOption(("-fa", "--flash-attn"), "attention is always computed in tiles", Values(("on", "auto", "1")),
                  Values(("on", "enabled", "true", "1", "auto", "-1"),
                         "on|enabled|true|1|off|disabled|false|0|auto|-1", ",")),
    IgnoredOption(("--warmup",), "", SWITCH),
    IgnoredOption(("--no-warmup",), "", SWITCH),  # compile time is reported separately
    IgnoredOption(("--jinja",), "", SWITCH),
    IgnoredOption(("--no-jinja",), "chat templates are always rendered by Jinja", SWITCH),
    IgnoredOption(("--simple-io",), "", SWITCH),
    IgnoredOption(("--reasoning-format",), "thoughts are printed as the model writes them", Values(("none",))),
    IgnoredOption(("-np", "--parallel"), _ONE_ANSWER, Values(("1", "-1"))),
    IgnoredOption(("-cb", "--cont-batching"), _ONE_ANSWER, SWITCH),
    IgnoredOption(("-fit", "--fit"), _FIT, Values(("off",))),
    IgnoredOption(("-fitt", "--fit-target"), _FIT_BENCH, bench=Values((), "[0-9]+", ",")),
    IgnoredOption(("-fitc", "--fit-ctx"), _FIT_BENCH, bench=Values((), "[0-9]+", ",")),
    IgnoredOption(("-nr", "--no-repack"), _PACKING, SWITCH),
    IgnoredOption(("--repack",), _PACKING, SWITCH, _BIT),
    IgnoredOption(("-kvo", "--kv-offload"), _CACHE, SWITCH),
    IgnoredOption(("-nkvo", "--no-kv-offload"), _CACHE, SWITCH, _BIT),
    IgnoredOption(("--op-offload",), _XLA, SWITCH),
    IgnoredOption(("--no-op-offload",), _XLA, SWITCH),
    IgnoredOption(("-nopo", "--no-op-offload"), _XLA, bench=_BIT),
    IgnoredOption(("--no-host",), _XLA, SWITCH, _BIT),
    IgnoredOption(("--numa",), "use numactl outside", Values(), Values((), "distribute|isolate|numactl|")),
    IgnoredOption(("--prio",), "use nice outside", Values(("0",)), Values(("0",), "-1|0|1|2|3")),
    IgnoredOption(("--poll",), _XLA, Values(), Values(("50",), _RANGE, ",")),
    IgnoredOption(("-C", "--cpu-mask"), _CORES, Values(), Values(("0x0", "0"), "(0x)?[0-9a-fA-F]+", ",")),
    IgnoredOption(("-Cr", "--cpu-range"), _CORES, Values()),
    IgnoredOption(("--cpu-strict",), _XLA, Values(("0",)), _BIT),
    IgnoredOption(("-dt", "--defrag-thold"), "the KV cache has no holes", Values()),
    IgnoredOption(("-cmoe", "--cpu-moe"), _EXPERTS, SWITCH),
    IgnoredOption(("-ncmoe", "--n-cpu-moe"), _EXPERTS, Values(), Values(("0",), _RANGE, ",")),
    IgnoredOption(("-ot", "--override-tensor"), "tensors stay on the device of their layer",
                  bench=Values((), "[^=]+=.+", ";")),
    IgnoredOption(("-lzm", "--lazy-mode"), "a mapped file is always read while it is opened",
                  bench=Values(("auto",), "on|auto|off", ",")),
    IgnoredOption(("-lv", "--verbosity", "--log-verbosity"), "use -v or --log-disable", Values(("3",))),
    IgnoredOption(("-embd", "--embeddings"), "embeddings are not supported yet", bench=_BIT, refused=True),
    IgnoredOption(("-mmp", "--mmap"), "llama-bench no longer has it; use -lm none",
                  bench=Values(("1",), "0|1", ","), refused=True),
    IgnoredOption(("-dio", "--direct-io"), "llama-bench no longer has it; use -lm dio", bench=_BIT, refused=True),
    IgnoredOption(("--lora",), _LORA, Values(), refused=True),
    IgnoredOption(("--lora-scaled",), _LORA, Values(), refused=True),
    IgnoredOption(("--control-vector",), "control vectors are not supported", Values(), refused=True),
    IgnoredOption(("--grammar",), _GRAMMAR, Values(), refused=True),
    IgnoredOption(("--grammar-file",), _GRAMMAR, Values(), refused=True),
    IgnoredOption(("-j", "--json-schema"), _SCHEMA, Values(), refused=True),
    IgnoredOption(("-jf", "--json-schema-file"), _SCHEMA, Values(), refused=True),
    IgnoredOption(("--prompt-cache",), "prompt caches on disk are not supported yet", Values(), refused=True),
    IgnoredOption(("-md", "--model-draft"), "draft models are not supported yet; use --lookup", Values(), refused=True),
    IgnoredOption(("--adaptive-target",), "the adaptive-p sampler is not supported", Values(), refused=True),
    IgnoredOption(("--rope-scaling",), _ROPE, Values(), refused=True),
    IgnoredOption(("--rope-scale",), _ROPE, Values(), refused=True),
    IgnoredOption(("--rope-freq-base",), _ROPE, Values(), refused=True),
    IgnoredOption(("--rope-freq-scale",), _ROPE, Values(), refused=True),
    IgnoredOption(("--override-kv",), "overriding metadata is not supported yet", Values(), refused=True),
    IgnoredOption(("-gan", "--grp-attn-n"), "self-extend is not supported", Values(), refused=True),
    IgnoredOption(("-mu", "--model-url"), "download the file and name it with -m, or use -hf", Values(), refused=True),
    IgnoredOption(("-mm", "--mmproj"), "images are not supported", Values(), refused=True),
    IgnoredOption(("--image", "--audio", "--video"), "only text is supported", Values(), refused=True),
    IgnoredOption(("-i", "--interactive"), _CHAT, SWITCH, refused=True),
    IgnoredOption(("-if", "--interactive-first"), _CHAT, SWITCH, refused=True),
    IgnoredOption(("--in-prefix",), _TEMPLATE, Values(), refused=True),
    IgnoredOption(("--in-suffix",), _TEMPLATE, Values(), refused=True),
)  # fmt: skip
RUN_OPTIONS = {option: option.run for option in OPTIONS if option.run is not None}
BENCH_OPTIONS = {option: option.bench for option in OPTIONS if option.bench is not None}


class _Ignore(argparse.Action):
    """Warn that the option has no effect, or raise UnsupportedError if it is refused."""

    def __init__(self, *, option: IgnoredOption, accepted: Values, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._option, self._accepted = option, accepted

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | list[str] | None,
        option_string: str | None = None,
    ) -> None:
        option, accepted = self._option, self._accepted
        text = values if isinstance(values, str) else ""
        for value in text.split(accepted.separator) if accepted.separator else [text]:
            if not re.fullmatch(accepted.pattern, value.strip(), re.DOTALL):
                names = "/".join(option.names)
                raise OptionError(f"argument {names}: {value!r} is not a value that llama.cpp accepts for it")
            if not option.reason or (isinstance(values, str) and value.strip() in accepted.silent):
                continue
            shown = f"{option_string} {value}" if isinstance(values, str) else option_string
            if option.refused:  # the value matters only if another one is accepted
                raise UnsupportedError(f"{shown if accepted.silent else option_string}: {option.reason}")
            logger.warning("%s has no effect: %s", shown, option.reason)


def add_ignored_options(parser: Parser, options: dict[IgnoredOption, Values] = RUN_OPTIONS) -> None:
    """Add options without an effect to a parser, hidden from its help."""
    for option, accepted in options.items():
        # llama.cpp's -fa was a switch before October 2025.
        optional = option.names[0] == "-fa" and option.run is accepted
        parser.add_argument(
            *option.names,
            action=_Ignore,
            option=option,
            accepted=accepted,
            nargs=0 if accepted.is_switch else "?" if optional else None,
            const="on" if optional else None,
            dest=f"ignored_{option.names[-1].lstrip('-')}",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
