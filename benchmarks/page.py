"""The figures of a run in the docs: tables in ``doctests/cost.rst``, and the plots beside it.

Owns what stands between the page's markers, so that no figure is written by hand.  Refuses to
measure, and to touch the page's own words.

Invariant: page and plots show the figures of ``doctests/figures/cost.json``, and nothing else; a
test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import chart, table
from .counted import PREFIX
from .growth import SIZES
from .harness import Result

DOCS = Path(__file__).resolve().parent.parent / "doctests"
PAGE = DOCS / "cost.rst"
FIGURES = DOCS / "figures"
DATA = FIGURES / "cost.json"

# The load for each processor from which figures are said to be disturbed.
BUSY = 0.5

Results = Mapping[str, Result]


def write(results: Iterable[Result], facts: Mapping[str, Any], *, quick: bool) -> None:
    """Put the figures into the page.  Rows that were not measured this time keep theirs."""
    FIGURES.mkdir(exist_ok=True)
    old = table.load(DATA)[0] if DATA.exists() else {}
    shown = {**old, **{result.name: result for result in results}}
    table.save(DATA, shown.values(), facts, quick=quick)
    shown, facts = table.load(DATA)
    PAGE.write_text(filled(PAGE.read_text("utf-8"), shown, facts), "utf-8")
    for name, draw in chart.PLOTS.items():
        draw(FIGURES / f"cost_{name}.svg", shown)


def filled(text: str, results: Results, facts: Mapping[str, Any]) -> str:
    """The page with what belongs between its markers."""
    for name, section in SECTIONS.items():
        begin, end = f".. figures: {name}", f".. end of {name}"
        pattern = re.compile(rf"({re.escape(begin)}\n).*?({re.escape(end)}\n)", re.DOTALL)
        assert len(pattern.findall(text)) == 1, f"the page has no place for {name}"
        body = section(results, facts)
        text = pattern.sub(lambda found, body=body: f"{found[1]}\n{body}\n\n{found[2]}", text)  # type: ignore[misc]
    return text


# -- tables ----------------------------------------------------------------------------------------


def columns(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of reStructuredText."""
    cells = [list(head), *map(list, lines)]
    if len(cells) == 1:
        return "Nothing was measured."
    widths = [max(len(line[at]) for line in cells) for at in range(len(head))]
    rule = "  ".join("=" * max(1, width) for width in widths)
    # an empty first cell would join its line to the one before
    rows = [
        "  ".join((cell or "\\").ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]
    return "\n".join([rule, rows[0].rstrip(), rule, *(row.rstrip() for row in rows[1:]), rule])


def ratio(result: Result | None) -> str:
    """A figure, or a dash where there is none."""
    return "-" if result is None or result.absent else table.figure(result.measured)


def took(result: Result | None, side: int = 0) -> str:
    """Nanoseconds of one operation."""
    if result is None or result.took is None:
        return "-"
    return f"{1e9 * result.took[side]:,.0f}"


def count(results: Results, name: str, side: int = 0) -> str:
    """Instructions of one operation."""
    result = results.get(PREFIX + name)
    return "-" if result is None or result.counted is None else f"{result.counted[side]:,.0f}"


def verdict(result: Result | None) -> str:
    """Whether an aim is met."""
    if result is None or result.aim is None:
        return ""
    return f"{result.aim} {table.VERDICTS[result.met].lower()}"


def named(results: Results, prefix: str) -> list[tuple[str, Result]]:
    """Rows with such a prefix, without it."""
    return [
        (name.removeprefix(prefix), result)
        for name, result in results.items()
        if name.startswith(prefix)
    ]


# -- sections --------------------------------------------------------------------------------------


def machine(results: Results, facts: Mapping[str, Any]) -> str:
    """What the figures hold for."""
    python = str(facts["python"]).split(" (")[0]
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    kind = ", rough figures" if facts.get("quick") else ""
    text = (
        f"{facts['processor']}, {facts['processors']} processors, {facts['machine']}; {python}; "
        f"attrs {facts['attrs']}, {libraries}{kind}."
    )
    return "\n".join(_wrapped(text + _disturbed(facts)))


def _disturbed(facts: Mapping[str, Any]) -> str:
    """What is to be said of a machine that had other things to do as well."""
    load = (facts.get("load") or [0.0])[0]
    if load <= BUSY * facts["processors"]:
        return ""
    return (
        f"  Others were at work on it (the load was {load:.1f} when it began): what threads do"
        " together, and all that is timed on the wall, is worth little here."
    )


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > 99:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


IDLE = (
    "pool.call", "pool.call.filter", "pool.checkout", "pool.checkout.call", "route.default",
    "async.call", "async.checkout", "pool.call.psycopg", "pool.checkout.psycopg",
)  # fmt: skip


def idle(results: Results, facts: Mapping[str, Any]) -> str:
    """The straight path."""
    lines = []
    for name in IDLE:
        result = results.get(name)
        if result is not None:
            lines.append(
                (
                    result.what, ratio(result), took(result), took(result, 1),
                    ratio(results.get(PREFIX + name)), count(results, name),
                    count(results, name, 1), verdict(result),
                )
            )  # fmt: skip
    head = ("what / against", "time", "ns", "ns", "instr.", "", "", "aim")
    return columns(head, lines)


def parts(results: Results, facts: Mapping[str, Any]) -> str:
    """What a call is made of."""
    lines = []
    for name, result in named(results, "parts."):
        what, _, _ = result.what.partition(" / ")
        counted = results.get(f"{PREFIX}parts.{name}")
        lines.append(
            (
                what, took(result), f"{100 * result.measured:.0f} %" if not result.absent else "-",
                count(results, f"parts.{name}"),
                "-" if counted is None or counted.absent else f"{100 * counted.measured:.0f} %",
            )
        )  # fmt: skip
    return columns(("part", "ns", "of the whole", "instructions", "of the whole"), lines)


def peers(prefix: str) -> Callable[[Results, Mapping[str, Any]], str]:
    """What an idle conn costs with each peer, the cheapest first."""

    def section(results: Results, facts: Mapping[str, Any]) -> str:
        elsewhere = {"async", "served", "jain"}
        rows = [
            result
            for name, result in named(results, prefix)
            if name.partition(".")[0] not in elsewhere
        ]
        there = sorted((r for r in rows if not r.absent), key=lambda r: (r.took or (0, 0))[0])
        lines = [(r.what.partition(" / ")[0], took(r), ratio(r)) for r in there]
        lines += [(r.what.partition(" / ")[0], r.absent, "-") for r in rows if r.absent]
        scale = "bare" if prefix == "peers." else "Queue"
        return columns(("pool", "ns", f"x {scale}"), lines)

    return section


def growth(results: Results, facts: Mapping[str, Any]) -> str:
    """How each grows."""
    whose = dict.fromkeys(name.rpartition(".")[0] for name in results if name.startswith("growth."))
    lines = []
    for name in whose:
        sizes = [results.get(f"{name}.{size}") for size in SIZES]
        what = next(result.what for result in sizes if result is not None).partition(",")[0]
        if name.startswith("growth.async."):
            what += " (tasks)"
        lines.append((what, *(ratio(result) for result in sizes)))
    return columns(("pool", *(f"{size:,} conns" for size in SIZES)), lines)


def scale(results: Results, facts: Mapping[str, Any]) -> str:
    """Our own flatness, by each way of growing."""
    names = ("scale.conns", "scale.checkout", "route.default.flat", "scale.resources",
             "scale.methods", "scale.waiting", "scale.waiters", "async.conns", "async.resources",
             "async.waiting")  # fmt: skip
    found = [results[name] for name in names if name in results]
    return columns(
        ("what / against", "time", "aim"), [(r.what, ratio(r), verdict(r)) for r in found]
    )


def contended(results: Results, facts: Mapping[str, Any]) -> str:
    """Eight threads over four conns."""
    lines = []
    for name, result in named(results, "held.p50."):
        what = result.what.partition(",")[0]
        cells = [
            results.get(f"{kind}.{name}")
            for kind in (
                "rush.rate",
                "held.rate",
                "held.p50",
                "held.p99",
                "held.jain",
                "peers.jain",
            )
        ]
        lines.append((what, *(ratio(cell) for cell in cells)))
    head = ("pool", "zero hold, x LifoQueue", "100 us, x no pool", "middle wait, us",
            "99th of 100, us", "Jain", "Jain, 32 over 2")  # fmt: skip
    return columns(head, lines)


def handoff(results: Results, facts: Mapping[str, Any]) -> str:
    """From one who gives back to one who waits."""
    lines = [(r.what, ratio(r), verdict(r)) for _, r in named(results, "handoff.")]
    return columns(("what / against", "time", "aim"), lines)


def kept(results: Results, facts: Mapping[str, Any]) -> str:
    """What is kept, and what is left behind."""
    rows = [r for prefix in ("memory.", "timeout.", "waiter.") for _, r in named(results, prefix)]
    lines = [
        (r.what, "-" if r.absent else table.figure(r.measured, r.unit), verdict(r)) for r in rows
    ]
    return columns(("what", "figure", "aim"), lines)


def storm(results: Results, facts: Mapping[str, Any]) -> str:
    """What a storm of cancellations leaves."""
    lines = []
    for _, r in named(results, "cancelled."):
        lines.append((r.what.partition(", left of")[0], r.absent or f"{r.low:.0f}"))
    return columns(("pool", "conns left of 10, the worst storm"), lines)


def aims(results: Results, facts: Mapping[str, Any]) -> str:
    """All aims, those that are missed by name."""
    missed = [r for r in results.values() if r.met is False]
    met = sum(r.met is True for r in results.values())
    head = f"{met} aims are met, {len(missed)} are missed" + (":" if missed else ".")
    if not missed:
        return head
    lines = [(f"``{r.name}``", table.figure(r.measured, r.unit), str(r.aim)) for r in missed]
    return f"{head}\n\n{columns(('row', 'figure', 'aim'), lines)}"


SECTIONS: dict[str, Callable[[Results, Mapping[str, Any]], str]] = {
    "machine": machine,
    "idle": idle,
    "parts": parts,
    "peers for threads": peers("peers."),
    "peers for tasks": peers("peers.async."),
    "scale": scale,
    "growth": growth,
    "contended": contended,
    "handoff": handoff,
    "kept": kept,
    "storm": storm,
    "aims": aims,
}
