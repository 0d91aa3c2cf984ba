"""What a user may choose about a compilation; everything has a default."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from graphc.errors import OptionError

__all__ = ["Options"]

TARGETS = ("cpu",)
PRECISIONS = ("strict", "float32")
MEMORY = ("planned", "separate")


@dataclass(frozen=True)
class Options:
    """Options of `graphc.compile`.

    target      "cpu"
    threads     threads a run may use; None means every CPU this process may run on
    precision   "float32", or "strict": no algorithm that changes the order or number of roundings of the definition
    level       0: only what is needed to run; 1: folding and simplification; 2: also layout and fusion (default)
    disable     names of passes to leave out, as `graphc inspect --passes` lists them
    memory      "planned": buffers share one arena by their lifetimes; "separate": each has a place of its own
    progress    show a progress bar on standard error while compiling
    """

    target: str = "cpu"
    threads: int | None = None
    precision: str = "float32"
    level: int = 2
    disable: frozenset[str] = frozenset()
    memory: str = "planned"
    progress: bool = False

    @staticmethod
    def of(**given: Any) -> Options:
        """Options from keyword arguments. Raises OptionError for an unknown name or a value out of range."""
        known = [f.name for f in fields(Options)]
        for name in given:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise OptionError(f"unknown option {name!r}{hint} (known: {', '.join(known)})")
        if "disable" in given:
            disable = given["disable"]
            given["disable"] = frozenset([disable] if isinstance(disable, str) else disable)
        options = Options(**given)
        options._check()
        return options

    def _check(self) -> None:
        if self.target not in TARGETS:
            raise OptionError(f"target={self.target!r}: expected one of {', '.join(TARGETS)}")
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision={self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if self.memory not in MEMORY:
            raise OptionError(f"memory={self.memory!r}: expected one of {', '.join(MEMORY)}")
        if self.level not in (0, 1, 2):
            raise OptionError(f"level={self.level!r}: expected 0, 1 or 2")
        if self.threads is not None and (
            isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 1
        ):
            raise OptionError(f"threads={self.threads!r}: expected a positive number, or None for every CPU")

    @property
    def thread_count(self) -> int:
        """`threads`, or the number of CPUs this process may run on."""
        return self.threads or len(os.sched_getaffinity(0))
