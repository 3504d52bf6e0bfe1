"""What connpool costs, as ratios to something simple that was timed in the same run.

``python -m benchmarks``, in the clone's top folder, prints one table, says of each aim whether it
is met, and ends with the machine and the versions; see ``--help`` for the rest.  ``pip install
".[bench]"`` brings every peer and every server; a row whose peer is not there says so.

A file holds one idea as a list of `BENCHES`; a new one is named in `rows`.

- One thread, one task: `calls`, `parts` (what a call is made of), `routes`, `tasks`.
- Growth: `scale`, which has aims, and `growth`, curves of connpool and its peers.
- Several who want the same: `contended`, `handoff`, `fairness`, `storms`.
- What is kept and what is left: `memory`, `cancelled`.
- Other people's pools: `peers`, by way of `field`, `field_threads` and `field_tasks`.
- Instructions instead of time: `counted`, by valgrind.  ``--only instr.`` shows these alone; they
  repeat within a per cent on a machine that is busy with other things.
- Real servers: `servers_postgres`, `servers_redis`, `servers_http`, `servers_websocket`.

How they are measured is in `harness`, how they are shown in `table`, `chart` and `page`.

Figures are kept in the folder ``.benchmarks``, where git does not look, and the next run shows how
far each is from the last one, with a ``!`` where that is more than noise.  To compare two states of
the code in any order::

    python -m benchmarks --json before.json
    python -m benchmarks --before before.json

``--write-docs`` measures and puts the figures into ``doctests/cost.rst``; with ``--figures FILE``
it takes them from a file that ``--json`` has written.

Ratios can be compared between machines, more or less; nanoseconds cannot.
"""
