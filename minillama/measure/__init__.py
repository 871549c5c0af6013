"""Measuring: llama-bench's tests, waiting times and memory, the machine's limits, and both programs side by side.

`plan` says what is measured, `bench` measures it, `record` is one result, `output` and `report` show it. `latency` is
what a person waits for. `traffic` counts the bytes and operations that a token takes, `roofline` and `bandwidth` what
the machine gives. `process` runs other programs, `against` alternates ours and llama.cpp's, `compare` sets two stored
runs beside each other. `lock` keeps measurements apart, `busy` sees what else runs.
"""
