"""Measuring: llama-bench's tests, llama-perplexity's numbers, the machine's memory bandwidth, both programs by turns.

Speed: `plan` says what is measured, `bench` measures it, `record` is one result, `report` shows it. `traffic` counts
the bytes and products that a token takes, `bandwidth` what the machine gives. `process` runs other programs, `against`
alternates ours and llama.cpp's.

Quality: `windows` cuts a text and runs the model over it, `perplexity` and `kl_divergence` (on a `base_file`) score it.
`tasks` reads multiple-choice tasks, `choices` lets the model choose. `quality` compares sampling settings by the texts
that they make: `diversity` counts words, `relevance` matches `hidden` states with a reference's, or an encoder's of
`bert_package`; `quality_report` shows it. `imatrix` measures the activations that enter each matrix.
"""
