"""From a file to text: load, prefill, decode, stop.

The Python API of a notebook is here.

`source` finds the file, `loader` places its parameters, `steps` holds what is compiled, `session` the state between
calls, `stream` the loop, `lookup` its guesses, `llm` the object that a person holds.
"""
