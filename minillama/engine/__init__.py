"""From a file to text: load, prefill, sample, stop; the Python API.

`load` opens a file with `LoadOptions` and gives an `LLM`. A `Stream` samples tokens of a `Session`, which holds the
key/value cache of a text. `backends` run the programs of a model, `loading` reads its parameters, `compile` keeps
executables, `generation` has the parts of a stream.
"""
