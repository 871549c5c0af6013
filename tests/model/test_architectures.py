"""The table of families: the error of an unknown name."""

import pytest

from minillama.errors import UnsupportedError
from minillama.model.architectures import FAMILIES, family


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("qwen36", "qwen3"), ("Qwen3", "qwen3"), ("gemma3n", "gemma3"), ("llama4", "llama"), ("", ""), ("x" * 10**6, "")],
)
def test_an_unknown_architecture_gets_the_nearest_names(name: str, nearest: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^unsupported architecture .* supported ones: .*{nearest}") as caught:
        family(name)
    message = str(caught.value)
    assert message.isprintable() and len(message) <= 300
    assert message.rpartition(": ")[2].split(", ")[0] in FAMILIES
