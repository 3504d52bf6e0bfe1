"""``python -m connpool``: the demo, for whoever wants to see a pool at work.

Owns the command line and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

LONGEST = 3600.0  # seconds


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(
            f"expected seconds, a number above 0 and up to {LONGEST:g}, got {text!r}"
        )
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m connpool",
        description="A connection pool for threads, asyncio and trio.  To see it at work, "
        "run: python -m connpool demo",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    demo = commands.add_parser(
        "demo",
        help="some seconds of real load, with a server that dies and comes back",
        description="Twelve threads call three servers through one pool.  One server is killed "
        "and comes back, one limits its callers, conns expire and are renewed.  Then twenty API "
        "keys, each with a limit that has to be learnt, are used as fast as that allows.  At the "
        "end of each scene what the servers did is compared with what the callers know.  All of "
        "it happens in this process and on the loopback interface.",
        epilog="Exit status: 0 if servers and callers agree, 1 if they differ, 2 if the command "
        "line is wrong.  Ctrl-C ends the demo early, with the table so far.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--seconds",
        type=_seconds,
        default=7.0,
        metavar="N",
        help="how long the first scene is, and the second if it is less than 4 "
        "(default: %(default)g)",
    )
    demo.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="makes all that is left to chance the same again, but for the timing of threads "
        "(default: a new one each time, which is shown)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 0
    from .demo import run

    try:
        return run(chosen.seconds, chosen.seed)
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from complaining once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
