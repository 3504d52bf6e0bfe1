"""Where a behaviour is tested: looks a test up by its id, without running anything."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def _tests(path: str) -> dict[str, list[str]]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name: [ast.unparse(decorator) for decorator in node.decorator_list]
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def check(test: str) -> None:
    """Fail unless there is a test ``path::name``, and, where it is one of the contract, a scenario:
    told of threads, asyncio and trio."""
    path, _, name = test.partition("::")
    found = _tests(path)
    assert name.startswith("test_"), f"{test} is no test"
    assert name in found, f"there is no {test}"
    if path.startswith("tests/contract/"):
        told = [line for line in found[name] if line.startswith(("scenario", "told_in"))]
        assert told, f"{test} is no scenario"
