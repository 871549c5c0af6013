"""JSON schemas to grammars, with llama.cpp's rules (common/json-schema-to-grammar.cpp)."""
