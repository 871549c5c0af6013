"""Multi-device and multi-host execution: sharding, process groups and remote workers.

`sharding`: PartitionSpecs of every tensor, loading of shards, and transfers between pipeline stages.
`group`: `jax.distributed` process groups, with or without a leader, and their gloo collectives.
`workers`: the protocol between a leader and its workers: messages, authentication, model transfer, failures.
"""
