"""Flags of a benchmark setup and its tests, valid for llama-bench and `minillama bench`."""

from minillama.engine.loading.device_sharing import DeviceSharing
from minillama.measure.speed.bench_plan import ALL_LAYERS, Setup, Workload


def setup_flags(setup: Setup) -> tuple[str, ...]:
    """Flags of a setup; -ngl and -lm only if they differ from the default."""
    layers = () if setup.n_gpu_layers == ALL_LAYERS else ("-ngl", str(setup.n_gpu_layers))
    mode = () if setup.load_mode == "auto" else ("-lm", setup.load_mode)
    return ("-m", str(setup.model), "-t", str(setup.n_threads), "-b", str(setup.n_batch), "-ub", str(setup.n_ubatch),
            "-ctk", setup.type_k, "-ctv", setup.type_v, *layers, *mode)  # fmt: skip


def workload_flags(workload: Workload) -> tuple[str, ...]:
    """Lengths of prompts, of generation, of pairs and depths."""
    lists = (("-p", workload.n_prompt), ("-n", workload.n_gen), ("-d", workload.n_depth))
    words = [word for name, values in lists for word in (name, ",".join(map(str, values or (0,))))]
    return (*words, *(word for prompt, gen in workload.n_pg for word in ("-pg", f"{prompt},{gen}")))


def sharing_flags(sharing: DeviceSharing) -> tuple[str, ...]:
    """Split mode, shares, main GPU and tensor parallelism; workers serve only one leader."""
    split = () if sharing.split_mode is None else ("-sm", sharing.split_mode)
    shares = ("-ts", "/".join(map(str, sharing.tensor_split))) if sharing.tensor_split else ()
    return (*split, *shares, "-mg", str(sharing.main_gpu), "-tp", str(sharing.tensor_parallel))


def device_flags(device: str | None) -> tuple[str, ...]:
    """-dev, if it was given."""
    return () if device is None else ("-dev", device)
