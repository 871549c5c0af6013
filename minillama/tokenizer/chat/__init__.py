"""Chat templates: conversations become prompts."""

from minillama.tokenizer.chat.chat_template import ChatTemplate, load_chat_template

__all__ = ["ChatTemplate", "load_chat_template"]
