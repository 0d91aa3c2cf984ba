"""Memory planning: buffers of known size and lifetime into one arena.

Finding the smallest arena is NP-hard ("dynamic storage allocation": Garey & Johnson, SR2), and good plans are easy:
place buffers one after another, each at the lowest gap among those already placed whose lifetimes meet its own. The
order decides. Largest first is the classic choice (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net
Inference", 2020, arXiv:2001.03288); four more are tried, and when the best of them is not within 2 % of the least
possible, the buffers that reach the top are moved to the front of the order, again and again, for a bounded number of
placements.

The result does not depend on the machine or its load: the effort is counted, not timed.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "check_plan", "lower_bound", "plan_arena", "plan_naive"]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

_GOOD_ENOUGH = 1.02  # of the lower bound
_EFFORT = 6_000  # buffer placements that improving may take, about 25 us each


@dataclass(frozen=True, slots=True)
class Block:
    """A buffer to place.

    Attributes:
        id: any hashable name.
        nbytes: its size.
        first: step that writes it first.
        last: step that uses it last; the buffer lives through both, so two buffers of one step never share.
    """

    id: Any
    nbytes: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if self.nbytes < 0 or self.last < self.first:
            raise ValueError(f"buffer {self.id!r}: {self.nbytes} bytes from step {self.first} to {self.last}")


def lower_bound(blocks: Iterable[Block], alignment: int = ALIGNMENT) -> int:
    """Bytes of the largest set of buffers alive at one step, each rounded up to the alignment: no plan takes less."""
    changes: list[tuple[int, int]] = []
    for block in blocks:
        size = _round_up(block.nbytes, alignment)
        changes += [(block.first, size), (block.last + 1, -size)]
    live = most = 0
    for _, change in sorted(changes):  # at one step, what ends goes first: its change is negative
        live += change
        most = max(most, live)
    return most


def plan_naive(blocks: Iterable[Block], alignment: int = ALIGNMENT) -> tuple[dict[Any, int], int]:
    """Every buffer beside every other: (offset by id, bytes of the arena). The oracle to test plans against."""
    offsets: dict[Any, int] = {}
    end = 0
    for block in blocks:
        offsets[block.id] = end
        end += _round_up(block.nbytes, alignment)
    return offsets, end


def plan_arena(blocks: Sequence[Block], alignment: int = ALIGNMENT) -> tuple[dict[Any, int], int]:
    """Place buffers so that those alive at the same step do not overlap.

    Returns:
        (offset by id, bytes of the arena); offsets are multiples of `alignment`. A buffer of no bytes is at 0.

    Raises ValueError when two blocks have one id.
    """
    if len({block.id for block in blocks}) != len(blocks):
        raise ValueError("two buffers have the same id")
    items = [_Item(i, _round_up(b.nbytes, alignment), b.first, b.last) for i, b in enumerate(blocks) if b.nbytes > 0]
    neighbours = _lifetimes_that_meet(items, len(blocks))
    target = int(lower_bound(blocks, alignment) * _GOOD_ENOUGH)
    best: dict[int, int] = {}
    best_size = -1
    for key in _ORDERS:
        order = sorted(items, key=key)
        offsets, size = _place(order, neighbours)
        if best_size < 0 or size < best_size:
            best, best_size, best_order = offsets, size, order
        if best_size <= target:
            break
    if best_size > target:
        best, best_size = _improve(best_order, best, best_size, neighbours, target)
    return {block.id: best.get(i, 0) for i, block in enumerate(blocks)}, max(best_size, 0)


def check_plan(blocks: Sequence[Block], offsets: dict[Any, int], size: int, alignment: int = ALIGNMENT) -> None:
    """Raise ValueError when a plan is wrong: two live buffers share bytes, one leaves the arena, or is not aligned."""
    alive: list[tuple[int, int, Block]] = []  # (offset, end, block), sorted by offset
    steps = sorted([(b.first, 1, i) for i, b in enumerate(blocks)] + [(b.last + 1, 0, i) for i, b in enumerate(blocks)])
    for _, begins, i in steps:
        block = blocks[i]
        place = (offsets[block.id], offsets[block.id] + block.nbytes)
        if block.nbytes == 0:
            continue
        if not begins:
            alive = [entry for entry in alive if entry[2] is not block]
            continue
        if place[0] < 0 or place[0] % alignment or place[1] > size:
            raise ValueError(f"buffer {block.id!r} is at {place[0]} to {place[1]} of {size}, alignment {alignment}")
        for start, end, other in alive:
            if start < place[1] and place[0] < end:
                raise ValueError(
                    f"buffers {block.id!r} and {other.id!r} share bytes and are alive at step {block.first}"
                )
        insort(alive, (*place, block), key=lambda entry: entry[:2])


@dataclass(frozen=True, slots=True)
class _Item:
    index: int
    size: int
    first: int
    last: int


_ORDERS: tuple[Callable[[_Item], tuple[float, ...]], ...] = (
    lambda b: (-b.size, b.first, b.index),  # largest first
    lambda b: (-b.size * math.sqrt(b.last - b.first + 1), b.first, b.index),  # between this and the next
    lambda b: (-b.size * (b.last - b.first + 1), b.first, b.index),  # largest area of bytes and steps
    lambda b: (b.first - b.last, -b.size, b.index),  # longest lived
    lambda b: (b.first, -b.size, b.index),  # as a stack: by time
)


def _lifetimes_that_meet(items: Sequence[_Item], count: int) -> list[NDArray[np.intp]]:
    """For each item's index, the indexes of the other items alive at some step of its life."""
    index = np.array([item.index for item in items], np.intp)
    first = np.array([item.first for item in items], np.int64)
    last = np.array([item.last for item in items], np.int64)
    meeting = [np.empty(0, np.intp)] * count
    for place, item in enumerate(items):
        meets = (first <= item.last) & (last >= item.first)
        meets[place] = False
        meeting[item.index] = index[meets]
    return meeting


def _place(order: Iterable[_Item], neighbours: Sequence[NDArray[np.intp]]) -> tuple[dict[int, int], int]:
    """First fit in the given order: each item at the lowest offset that its placed neighbours leave free."""
    starts = np.full(len(neighbours), -1, np.int64)
    ends = np.zeros(len(neighbours), np.int64)
    offsets: dict[int, int] = {}
    for item in order:
        others = neighbours[item.index]
        others = others[starts[others] >= 0]
        at = 0
        if len(others):
            others = others[np.argsort(starts[others])]
            # Free from `floor` on, as far as lower neighbours go; the next one begins at `ceiling`.
            floor = np.maximum.accumulate(ends[others])
            ceiling = starts[others]
            fits = ceiling[1:] - floor[:-1] >= item.size
            at = 0 if ceiling[0] >= item.size else int(floor[fits.argmax()] if fits.any() else floor[-1])
        starts[item.index], ends[item.index] = at, at + item.size
        offsets[item.index] = at
    return offsets, int(ends.max(initial=0))


def _improve(
    order: list[_Item], offsets: dict[int, int], size: int, neighbours: Sequence[NDArray[np.intp]], target: int
) -> tuple[dict[int, int], int]:
    """Hill climbing on the order: what reaches the top of the arena was placed too late, so it moves to the front."""
    effort = _EFFORT
    best_order, best, best_size = order, offsets, size
    tried: set[tuple[int, ...]] = set()
    while best_size > target and effort > 0:
        highest = [item for item in order if offsets[item.index] + item.size > target]
        moved = {item.index for item in highest}
        order = highest + [item for item in order if item.index not in moved]
        signature = tuple(item.index for item in order)
        if signature in tried:
            # Going round in circles: from the best so far, let one high buffer at a time go first.
            front = order[len(tried) % len(order)]
            order = [front, *(item for item in best_order if item is not front)]
            signature = tuple(item.index for item in order)
        tried.add(signature)
        offsets, size = _place(order, neighbours)
        effort -= len(order)
        if size < best_size:
            best_order, best, best_size = order, offsets, size
    return best, best_size


def _round_up(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
