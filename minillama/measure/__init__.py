"""Measurements: speed and latency, limits of the machine, model quality, text quality.

`trial` is one test, `tables` prints tables, `sample_statistics` has mean and deviation. Sub-rooms, lowest first:

`host`: lock for one measurement at a time, other load, child processes.
`limits`: memory bandwidth, roofline, work per token, all-reduce time, traffic between devices.
`speed`: llama-bench's tests and output formats, latency, interleaved A/B runs with llama.cpp, comparison of two runs.
`serving`: load on servers: closed and open loops, time to first token, gaps, throughput, goodput.
`device`: the report of a GPU or TPU: limits, agreement, speeds, kernels.
`quality`: perplexity, KL divergence, multiple choice, importance matrix.
`texts`: diversity, relevance and fluency of generated texts.
"""
