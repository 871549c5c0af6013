"""Measuring: llama-bench's tests, the machine's memory bandwidth, and both programs side by side.

`plan` says what is measured, `bench` measures it, `record` is one result, `report` shows it. `traffic` counts the bytes
and products that a token takes, `bandwidth` what the machine gives. `process` runs other programs, `against` alternates
ours and llama.cpp's. `imatrix` measures the activations that enter each matrix.
"""
