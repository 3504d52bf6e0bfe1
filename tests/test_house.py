"""The house rules: who may import whom, and what must be in every room.

Imports are read from the source, not from a running interpreter, so one inside a function or
under TYPE_CHECKING counts like any other.  A new module is one more row of `ROOMS`; one that has
no row fails.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import attrs
import pytest

import connpool

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "connpool"
MOST_LINES = 400  # 300 is what to aim at


def names(text: str) -> frozenset[str]:
    """The words of a table's cell."""
    return frozenset(text.split())


# What has a clock, a thread, a loop, a wire, a log or chance in it.
IMPURE = names("""
    _thread asyncio concurrent contextvars datetime importlib logging multiprocessing os queue
    random sched secrets select selectors signal socket socketserver ssl subprocess threading time
    uuid
""")


@attrs.frozen
class Room:
    """What a module may import: patterns of the package's modules, and libraries by name.

    The standard library and attrs are open to every room, but for what is in `never`, which may
    hold patterns of the package's modules as well.
    """

    own: frozenset[str] = attrs.field(default="", converter=names)
    libraries: frozenset[str] = attrs.field(default="", converter=names, kw_only=True)
    never: frozenset[str] = attrs.field(default=frozenset(), kw_only=True)

    def admits(self, module: str) -> bool:
        """Whether this room may import `module`: a short name of ours, or a library's."""
        if any(fnmatchcase(module, pattern) for pattern in self.never):
            return False
        if module.startswith("."):
            return any(fnmatchcase(module, pattern) for pattern in self.own)
        return module in {"attr", "attrs"} | sys.stdlib_module_names | self.libraries


# The package's own modules are named from its top: "." is connpool/__init__.py, ".core" is
# connpool/core/__init__.py, ".core.entry" is connpool/core/entry.py.  The first row whose pattern
# fits is the one that counts.
ROOMS: dict[str, Room] = {
    ".": Room(".*", never=names(".adapters .adapters.* .testing .testing.*")),
    ".errors": Room(),
    ".conn": Room(".errors"),
    # the pure room
    ".core": Room(".core.* .conn .errors", never=IMPURE),
    ".core.machine": Room(".core.* .conn .errors", never=IMPURE),
    ".core.*": Room(".core.* .conn .errors", never=IMPURE | names(".core.machine")),
    # the drivers: two pools that know nothing of each other, and what lies between them
    ".driver": Room(".core .core.* .conn .errors"),
    ".face": Room(".core .core.* .errors .driver .leases"),
    ".crew": Room(".core .core.* .conn .errors"),
    ".leases": Room(".core .core.* .errors"),
    ".forks": Room(),
    ".backstage": Room(".core .core.* .conn .errors .driver .face .forks .leases .crew"),
    ".supplies": Room(".core .core.* .conn .errors .driver .crew .backstage"),
    ".checkouts": Room(".core .core.* .conn .errors .driver .leases .supplies"),
    ".pool": Room(".core .core.* .conn .errors .driver .crew .checkouts"),
    ".loops": Room(libraries="anyio"),
    ".async_backstage": Room(
        ".core .core.* .conn .errors .driver .face .forks .leases .loops", libraries="anyio"
    ),
    ".async_chores": Room(".core .core.* .conn .errors .async_backstage .loops", libraries="anyio"),
    ".async_supplies": Room(
        ".core .core.* .conn .errors .async_backstage .async_chores", libraries="anyio"
    ),
    ".async_checkouts": Room(
        ".core .core.* .conn .errors .driver .leases .loops .async_supplies", libraries="anyio"
    ),
    ".async_pool": Room(
        ".core .core.* .conn .errors .driver .loops .async_checkouts", libraries="anyio"
    ),
    # one row for an adapter that needs a library, or shares a module with another one
    ".adapters": Room(),
    ".adapters.agent": Room(".conn .errors .adapters.agent_rules"),
    ".adapters.async_agent": Room(".conn .errors .adapters.agent_rules", libraries="anyio"),
    ".adapters.text_client": Room(".conn .errors .adapters.text_wire"),
    ".adapters.text": Room(".conn .errors .adapters.text_wire .adapters.text_client"),
    ".adapters.async_text": Room(
        ".conn .errors .adapters.text_wire .adapters.text_client", libraries="anyio"
    ),
    ".adapters.text_server": Room(".conn .errors .adapters.text_wire"),
    # those over other people's libraries, each with its extra
    ".adapters.*postgres*": Room(".conn .errors .adapters.postgres*", libraries="psycopg"),
    ".adapters.*redis*": Room(".conn .errors .adapters.redis*", libraries="redis"),
    ".adapters.*http*": Room(".conn .errors .adapters.http*", libraries="anyio httpx"),
    ".adapters.*websocket*": Room(
        ".conn .errors .adapters.websocket*", libraries="anyio websockets"
    ),
    ".adapters.*grpc*": Room(".conn .errors .adapters.grpc*", libraries="grpc"),
    ".adapters.*subprocess*": Room(".conn .errors .adapters.subprocess*", libraries="anyio"),
    ".adapters.*": Room(".conn .errors"),
    # around the house
    ".testing": Room(".testing.*"),
    ".testing.*": Room(
        ".core .core.* .conn .errors .pool .async_pool .testing .testing.*", libraries="anyio"
    ),
    ".demo_*": Room(".*"),
    ".demo": Room(".*", libraries="anyio trio"),
    ".__main__": Room(".*", libraries="anyio trio"),
}


def short(dotted: str) -> str:
    """The name of one of the package's modules as the table has it.

    >>> short("connpool"), short("connpool.core.entry")
    ('.', '.core.entry')
    """
    return dotted.removeprefix("connpool") or "."


def room_of(module: str) -> Room | None:
    """The row for a module: the first whose pattern fits, or None."""
    return next((room for name, room in ROOMS.items() if fnmatchcase(module, name)), None)


def find_modules(package: Path) -> dict[str, Path]:
    """The short name and the file of every module in the package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[short(".".join(parts).removesuffix(".__init__"))] = path
    return found


MODULES = find_modules(PACKAGE)
KNOWN = MODULES.keys() | {name for name in ROOMS if "*" not in name}


def imports(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """All that the source of `module` imports, as `Room.admits` wants to have it."""
    inside = ("connpool" + module.rstrip(".")).split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (_named(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_package
            base = inside[: len(inside) - up] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from .core import entry` is about a module, `from .core import Core` is not
                submodule = short(f"{origin}.{alias.name}")
                yield submodule if submodule in KNOWN else _named(origin)


def _named(dotted: str) -> str:
    top = dotted.partition(".")[0]
    return short(dotted) if top == "connpool" else top


def offences(module: str, source: str, *, is_package: bool = False) -> set[str]:
    """What the source of `module` imports and may not."""
    room = room_of(module)
    assert room is not None, f"{module} has no row in ROOMS: say there what it may import"
    wanted = imports(module, source, is_package=is_package)
    return {name for name in wanted if not room.admits(name)}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_row_allows(module: str) -> None:
    """Nobody imports from a room that the table does not open to them."""
    path = MODULES[module]
    found = offences(module, path.read_text("utf-8"), is_package=path.stem == "__init__")
    assert not found, f"{path.relative_to(HERE)} may not import {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    ("module", "line", "offence"),
    [
        (".core.entry", "import time", "time"),
        (".core.entry", "import attrs, math", None),
        (".core.entry", "def f():\n    from threading import Lock", "threading"),
        (".core.entry", "if TYPE_CHECKING:\n    from .machine import Core", ".core.machine"),
        (".core.entry", "from connpool.core import machine", ".core.machine"),
        (".core.entry", "from . import Core", ".core"),
        (".core.entry", "from . import *", ".core"),
        (".core.entry", "from . import machine", ".core.machine"),
        (".core.entry", "from ..errors import PoolError", None),
        (".core.entry", "from .. import Pool", "."),
        (".core.entry", "from ..pool import Pool", ".pool"),
        (".core.entry", "import concurrent.futures", "concurrent"),
        (".core.entry", "import numpy", "numpy"),
        (".core.machine", "from .entry import Entry", None),
        (".core.machine", "from asyncio import Event", "asyncio"),
        (".pool", "import threading, time", None),
        (".pool", "from .core import Core", None),
        (".pool", "from .driver import Driver", None),
        (".pool", "from .async_pool import AsyncPool", ".async_pool"),
        (".pool", "import anyio", "anyio"),
        (".async_pool", "import anyio.abc", None),
        (".async_pool", "from connpool.pool import Pool", ".pool"),
        (".conn", "from .errors import show", None),
        (".conn", "from .core.entry import Entry", ".core.entry"),
        (".errors", "from .conn import Reply", ".conn"),
        (".adapters.text", "from ..conn import Reply", None),
        (".adapters.text", "from .. import Pool", "."),
        (".adapters.text", "from ..core import Core", ".core"),
        (".adapters.text", "from .agent import Agent", ".adapters.agent"),
        (".adapters.text", "import httpx", "httpx"),
        (".adapters.text", "import anyio", "anyio"),
        (".adapters.async_text", "import anyio.lowlevel", None),
        (".adapters.postgres", "import psycopg", None),
        (".adapters.postgres", "import redis", "redis"),
        (".testing.scripts", "from .steps import perform", None),
        (".testing.clock", "from ..pool import Pool", None),
    ],
)
def test_the_table_bites(module: str, line: str, offence: str | None) -> None:
    """An import across a wall is seen however it is written, and an honest one is let be."""
    assert offences(module, line) == ({offence} if offence else set())


@pytest.mark.parametrize(
    ("line", "offence"),
    [
        ("from .pool import Pool", None),
        ("from .core.entry import Info", None),
        ("from . import conn", None),
        ("from .testing import ManualClock", ".testing"),
        ("from .adapters.agent import Agent", ".adapters.agent"),
    ],
)
def test_the_front_door_leads_everywhere_but_to_adapters_and_testing(
    line: str, offence: str | None
) -> None:
    """connpool/__init__.py loads neither an adapter nor the testing aids."""
    assert offences(".", line, is_package=True) == ({offence} if offence else set())


def test_a_module_without_a_row_is_refused() -> None:
    """A room that nobody has thought about cannot be moved into."""
    with pytest.raises(AssertionError, match="has no row in ROOMS"):
        offences(".attic", "import math")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_opens_with_a_docstring(module: str) -> None:
    """Each module says first what it is about."""
    assert ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8")))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_not_too_long_to_read(module: str) -> None:
    """A file that grew past the limit is split by idea."""
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines; at most {MOST_LINES}, better 300"


def test_public_names_are_sorted_and_there() -> None:
    """`__all__` is in order, names nothing twice, and nothing that is missing."""
    assert list(connpool.__all__) == sorted(set(connpool.__all__))
    assert [name for name in connpool.__all__ if not hasattr(connpool, name)] == []


def test_the_package_says_it_is_typed() -> None:
    """py.typed is in the package, so type checkers read its annotations."""
    assert (PACKAGE / "py.typed").is_file()


README = (HERE / "README.rst").read_text("utf-8")
SHELL = ".. code-block:: sh\n"


def readme_commands() -> dict[str, str]:
    """The README's blocks of shell, by the target right before each, as .ci/run finds them."""
    blocks = re.findall(rf"^\.\. _(\S+):\n\n{SHELL}\n((?:   .*\n)+)", README, re.MULTILINE)
    return {target: textwrap.dedent(block) for target, block in blocks}


@pytest.mark.parametrize(
    ("target", "job"),
    [("demo-command", "-m connpool demo"), ("test-command", "-m pytest")],
)
def test_the_readme_holds_a_whole_command(target: str, job: str) -> None:
    """Each of the two commands makes an environment, installs into it, and then does its job."""
    make, install, run = readme_commands()[target].split(" &&\n")
    assert make.startswith("python3 -m venv ")
    assert " -m pip install " in install
    assert run.endswith(f"{job}\n")


def test_the_readme_asks_for_two_commands_and_no_more() -> None:
    """Whoever tries connpool has exactly two blocks of shell to paste, both known by name."""
    assert readme_commands().keys() == {"demo-command", "test-command"}
    assert README.count(SHELL) == 2
