"""Grammars of tool calls: a model's form of calls, and the functions' JSON schemas."""
