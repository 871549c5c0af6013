"""Several machines as one: processes that find, trust and follow one another.

`wire` carries messages, `secret` says who may lead, `identity` and `meeting` who meets whom where. `supervisor` is a
worker, which starts a process for each leader; `child` is how that process begins, `gloo` how it speaks to its peers.
`leader` gathers workers into a group, `shipping` gives them the model.
"""
