"""Where: a filter given as data, and what it means.

Owns the meaning: which conns pass.  Refuses to know how they are found; see `index`.

Invariant: equal filters are equal keys, however they were written; one that compares values never
raises, whatever the values do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

#: What users give: a function of a conn's Info, the items that its extra must have, or nothing.
Filter = Callable[[Any], Any] | Mapping[str, Any] | None


class Where(frozenset[tuple[Hashable, Any]]):
    """The items that the `extra` of a conn must have: ``{"region": "eu"}`` as a set.

    A conn passes where its extra is a mapping that has each of the keys, and under it the same
    object or an equal one.  Two values whose comparison raises are different.

    >>> eu = Where({"region": "eu"}.items())
    >>> eu.passes({"region": "eu", "tier": 1}), eu.passes({"region": "us"}), eu.passes("eu")
    (True, False, False)
    """

    __slots__ = ()

    def passes(self, extra: Any) -> bool:
        """Whether a conn with this extra passes."""
        try:
            if extra.__class__ is dict or isinstance(extra, Mapping):
                return bool(extra.items() >= self)
        except Exception:  # of a value's __eq__, or of a mapping of the user's own
            return False
        return False

    def __call__(self, info: Any) -> bool:
        """The same as a function of a conn's `Info`."""
        return self.passes(info.extra)

    def __repr__(self) -> str:
        # Sorted, or the same filter would read otherwise in each run.
        items = sorted(f"{key!r}: {value!r}" for key, value in self)
        return f"{{{', '.join(items)}}}"


#: What becomes of it in the core.
Test = Callable[[Any], Any] | Where | None
