"""Measuring: llama-bench's tests, waiting times and memory, the machine's limits, llama-perplexity's numbers, texts.

Speed: `plan` says what is measured, `bench` measures it, `record` is one result, `output` and `report` show it.
`latency` is what a person waits for. `traffic` counts the bytes and operations that a token takes, `roofline` and
`bandwidth` what the machine gives. `process` runs other programs, `against` alternates ours and llama.cpp's, `compare`
sets two stored runs beside each other. `lock` keeps measurements apart, `busy` sees what else runs.

Quality: `windows` cuts a text and runs the model over it, `perplexity` and `kl_divergence` (on a `base_file`) score it.
`tasks` reads multiple-choice tasks, `choices` lets the model choose. `quality` compares sampling settings by the texts
that they make: `diversity` counts words, `relevance` matches `hidden` states with a reference's, or an encoder's of
`bert_package`; `quality_report` shows it. `imatrix` measures the activations that enter each matrix.
"""
