"""The garbage collector waits while a graph is transformed.

A pass makes a great many small objects that live and hold no cycles: nodes refer to their operands alone, and die by
their reference counts. Python's collector would walk over all of them again and again to find nothing, for a sixth of
the time of a compilation.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_waits"]


@contextmanager
def collector_waits() -> Iterator[None]:
    """Inside the block, cycles are not looked for. Blocks may be nested, and of several threads at once the one that
    came first turns the collector on again. Where it was off already, nothing happens."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
