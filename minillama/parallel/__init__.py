"""Several devices and several machines: what is cut where, and how processes find, trust and follow each other.

`specs`, `pieces` and `stages` cut a model. `wire` carries messages, `secret` says who may lead, `identity` and
`meeting` who meets whom where. `supervisor` is a worker, which starts a process for each leader; `child` is how that
process begins, `gloo` how it speaks to its peers. `leader` gathers workers into a group, `shipping` gives them the
model.
"""
