"""All-reduce times, and the number of all-reduces in the program."""

import jax

from minillama.measure.limits.all_reduce import SUMS_PER_RUN, all_reduce_seconds
from minillama.parallel.sharding.partition_specs import AXIS, tensor_mesh


def test_times_of_one_device_are_times() -> None:
    mesh = tensor_mesh(jax.devices("cpu")[:1])
    assert mesh.axis_names == (AXIS,) and mesh.size == 1 and SUMS_PER_RUN > 1
    found = all_reduce_seconds(mesh, (256, 4096), repetitions=1)
    assert list(found) == [256, 4096] and all(0 < seconds < 1 for seconds in found.values())
