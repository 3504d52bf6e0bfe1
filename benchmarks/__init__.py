"""What connpool costs, as ratios to something simple that was timed in the same run.

``python -m benchmarks``, in the clone's top folder with connpool installed, prints one table; see
``--help`` for the rest.  A file holds one idea (`calls`, `routes`, `scale`, `threads`, `fairness`,
`memory`, `tasks`, `storms`, `peers`, and `servers_postgres`, `servers_redis`, `servers_http`,
`servers_websocket`, which talk to real servers) as a list of `BENCHES`; a new one is named in
`rows`.  How they are measured is in `harness`.

`peers` measures other people's pools as well, as far as they are installed: ``pip install
".[bench]"`` gets them all.

The servers are those of the tests: ``pip install ".[test]"`` brings them.

To compare a change with what was there before::

    python -m benchmarks --json before.json
    python -m benchmarks --before before.json

Ratios can be compared between machines, more or less; nanoseconds cannot.
"""
