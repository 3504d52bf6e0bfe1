"""The page of the docs: its tables are those that the command printed.

Owns where they stand.  Refuses to know what they show.

Invariant: between two marks there is nothing that was not printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import indent

PAGE = Path(__file__).resolve().parents[2] / "doctests" / "quality.rst"
PLOTS = PAGE.parent / "quality"


def marks(part: str) -> tuple[str, str]:
    """Where a part of the page begins and ends."""
    return (f".. {part}: what the command printed\n", f".. end of {part}\n")


def put(text: str, part: str, printed: Iterable[str]) -> str:
    """The page with a part of it replaced.

    >>> print(put(".. x: what the command printed\\n.. end of x\\n", "x", ["a\\n\\nb"]))
    .. x: what the command printed
    <BLANKLINE>
    ::
    <BLANKLINE>
        a
    <BLANKLINE>
        b
    <BLANKLINE>
    .. end of x
    <BLANKLINE>
    """
    begin, end = marks(part)
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{part}: expected the marks {begin!r} and {end!r} in the page")
    blocks = (f"::\n\n{indent(block, '    ')}\n\n" for block in printed)
    return f"{before}{begin}\n{''.join(blocks)}{end}{after}"


def write(part: str, printed: Iterable[str]) -> None:
    """Replace a part of the page."""
    PAGE.write_text(put(PAGE.read_text("utf-8"), part, printed), "utf-8")
