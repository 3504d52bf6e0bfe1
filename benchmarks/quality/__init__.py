"""How well callers are served: the core in invented time, and scores.

``python -m benchmarks.quality`` plays the scenarios and prints a table for each; ``python -m
benchmarks.quality fleet`` plays many pools over many servers.  See ``--help`` for the rest, and
``doctests/quality.rst`` for what came of it and what it means.

It is `connpool.testing.simulate` without the ledger: `drive` leads the same core through the same
doors, but checks nothing, so that millions of calls take minutes.  What befalls it comes from
`streams` (callers) and `servers`; `books` counts, `theory` says what can be had at best; `lines`,
`faults` and `births` hold the scenarios, `fleet` and `fleet_plans` the fleet; `scores`, `show`,
`plots` and `page` present what came of it.

Invariant: all chance comes from one seed, so the same seed gives the same figures on any machine.
"""
