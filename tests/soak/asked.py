"""Requests with known answers: random prompts and settings for three endpoints."""

import json
import random
from dataclasses import dataclass

TEXT = "once upon a time little girl boy fox bird cat dog lived forest near river every day play friend red ball"
WORDS = TEXT.split()
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}, "required": ["name"]}
SETTINGS: tuple[dict[str, object], ...] = (
    {}, {}, {}, {"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.7, "min_p": 0.1}, {"repeat_penalty": 1.3},
    {"typical_p": 0.8}, {"mirostat": 2}, {"logit_bias": [[5, 2.0]]}, {"stop": ["and"]}, {"dry_multiplier": 0.8},
    {"grammar": "root ::= [a-z ]{5,30}"}, {"json_schema": SCHEMA}, {"xtc_probability": 0.5}, {"n_probs": 3},
)  # fmt: skip


@dataclass
class Asked:
    """A request, without `stream`. answer: the text of a lone run."""

    number: int
    path: str
    body: dict[str, object]
    answer: str = ""

    def text_of(self, answer: dict) -> str:
        """The text of a whole answer."""
        if self.path == "/completion":
            return answer["content"]
        choice = answer["choices"][0]
        return choice["text"] if self.path == "/v1/completions" else choice["message"]["content"]

    def part_of(self, event: dict) -> str:
        """The text of an event of a stream."""
        if self.path == "/completion":
            return event["content"]
        choice = event["choices"][0] if event["choices"] else {}
        return choice.get("text") or choice.get("delta", {}).get("content") or ""


def random_asked(chance: random.Random, number: int) -> Asked:
    """A request; the answer depends on nothing but the request."""
    prompt = " ".join(chance.choices(WORDS, k=chance.randint(3, 60)))
    path = chance.choice(("/completion", "/completion", "/v1/completions", "/v1/chat/completions"))
    body = {"seed": number, "n_predict": chance.choice((8, 24, 64)), "cache_prompt": chance.random() < 0.5}
    asked = {"messages": [{"role": "user", "content": prompt}]} if "chat" in path else {"prompt": prompt}
    setting = chance.choice(SETTINGS)
    ends = {} if "grammar" in setting or "json_schema" in setting else {"ignore_eos": True}
    return Asked(number, path, {**asked, **body, **ends, **setting})


class EventReader:
    """Reads the events of a stream. text: so far. is_whole: the last event came. error: an event with one."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._rest = asked, b""
        self.text, self.pieces, self.is_whole, self.error = "", 0, False, ""

    def push(self, content: bytes) -> None:
        """Read more bytes of the body."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                self._read(line[6:].decode())

    def _read(self, data: str) -> None:
        if data == "[DONE]":
            self.is_whole = True
            return
        event = json.loads(data)
        if "error" in event:
            self.error = str(event["error"])
            return
        self.text += self._asked.part_of(event)
        self.pieces += 1
        self.is_whole |= self._asked.path == "/completion" and event["stop"]
