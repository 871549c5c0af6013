"""Measuring: llama-bench's tests, the machine's memory bandwidth, both programs side by side, the quality of texts.

`plan` says what is measured, `bench` measures it, `record` is one result, `report` shows it. `traffic` counts the bytes
and products that a token takes, `bandwidth` what the machine gives. `process` runs other programs, `against` alternates
ours and llama.cpp's.

`quality` compares sampling settings by the texts that they make: `diversity` counts words, `relevance` matches `hidden`
states with a reference's, or an encoder's through `bert_package`; `quality_report` shows it.
"""
