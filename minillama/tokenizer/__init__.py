"""Tokenizers and chat templates from the metadata of a GGUF file. No JAX here.

>>> tokenizer = load_tokenizer(file.metadata)
>>> tokenizer.encode("Once upon a time")
[1, 9038, 2501, 263, 931]
"""

from minillama.tokenizer.chat.chat_formats import BUILTIN_TEMPLATES
from minillama.tokenizer.chat.chat_template import ChatTemplate, load_chat_template
from minillama.tokenizer.load_tokenizer import load_tokenizer
from minillama.tokenizer.streaming_decoder import StreamDecoder
from minillama.tokenizer.tokenize import Tokenizer

__all__ = ["BUILTIN_TEMPLATES", "ChatTemplate", "StreamDecoder", "Tokenizer", "load_chat_template", "load_tokenizer"]
