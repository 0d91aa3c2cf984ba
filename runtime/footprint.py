"""What a compiled model takes, in a few numbers: they are stored with it, so that who asks need not compile it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Footprint", "total"]


class Footprint(NamedTuple):
    """Kernel launches in the plan, and bytes: of the arena, the least that any arena could have, of constants."""

    launches: int
    arena: int
    lower_bound: int
    constants: int


def total(parts: Iterable[Footprint]) -> Footprint:
    """Of several programs together."""
    return Footprint(*map(sum, zip(Footprint(0, 0, 0, 0), *parts, strict=True)))
