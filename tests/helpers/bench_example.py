"""One recorded result of `minillama bench`."""

from minillama.measure.speed.bench_record import Record

RECORD = Record(
    build_commit="minillama", cpu_info="AMD EPYC", gpu_info="", backends="CPU", model_filename="tiny.gguf",
    model_type="llama ?B all F32", model_size=5772288, model_n_params=1443072, n_batch=2048, n_ubatch=512, n_threads=1,
    type_k="f16", type_v="f16", n_gpu_layers=-1, n_prompt=8, n_gen=0, n_depth=0, test_time="2026-11-22T21:43:17Z",
    avg_ns=1337127, stddev_ns=332151, avg_ts=14111.19, stddev_ts=5336.93, samples_ns=(1571991, 1102264),
    samples_ts=(5089.09, 7257.79), load_seconds=0.5, compile_seconds=1.5,
)  # fmt: skip
