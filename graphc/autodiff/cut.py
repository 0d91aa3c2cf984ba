"""What to keep of a computation so that the rest of it can be computed again: a minimum cut.

The values that a later computation needs are made from origins (what will be gone by then) by cheap and by expensive
operations. Kept is the smallest set of values, in bytes, that stands on every way from an origin or an expensive result
to a needed value; all that lies behind the set is cheap to do again. This is the maximum flow problem, with the values
as edges (Ford & Fulkerson, 1956); among equal cuts the one nearest to the origins is taken, which keeps the results of
contractions rather than of the arithmetic behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from math import prod

from graphc.ir.graph import Value, toposort
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind

__all__ = ["expensive", "smallest_cut"]

#: kinds of operations that are not done twice: contractions, loops, and reductions, whose results are small
_EXPENSIVE = (Kind.ANCHOR, Kind.CONTROL, Kind.REDUCE, Kind.HOST)
#: what a symbolic extent counts for
_SYMBOLIC = 64
_UNBOUNDED = 1 << 62


def expensive(value: Value) -> bool:
    """Whether a value is the result of an operation that is better not done twice."""
    return value.node.op.kind in _EXPENSIVE


def smallest_cut(
    needed: Sequence[Value], origins: Collection[Value], costs_much: Callable[[Value], bool] = expensive
) -> list[Value]:
    """The values to keep, in the order of computation. What depends on no origin and on nothing expensive is free."""
    network = _Network()
    ways: set[Value] = set()  # the values that lie on a way from an origin or an expensive result
    order: list[Value] = []
    for node in toposort(needed):
        for v in node.outputs:
            source = v in origins or (node.op.kind is not Kind.LEAF and costs_much(v))
            feeds = [] if source else [u for u in node.inputs if u in ways]
            if not source and not feeds:
                continue
            ways.add(v)
            order.append(v)
            network.join(("in", v), ("out", v), _bytes(v))
            if source:
                network.join("source", ("in", v), _UNBOUNDED)
            for u in feeds:
                network.join(("out", u), ("in", v), _UNBOUNDED)
    for v in needed:
        if v in ways:
            network.join(("out", v), "sink", _UNBOUNDED)
    near = network.near("source", "sink")
    return [v for v in order if ("in", v) in near and ("out", v) not in near]


def _bytes(v: Value) -> int:
    if not isinstance(v.type, TensorType):
        return _UNBOUNDED  # a sequence is kept only where it is needed itself
    return max(1, prod(d if isinstance(d, int) else _SYMBOLIC for d in v.shape)) * max(1, v.dtype.itemsize)


class _Network:
    """Capacities between points; `near` pushes as much flow through as goes."""

    def __init__(self) -> None:
        self._room: dict[object, dict[object, int]] = {"source": {}, "sink": {}}

    def join(self, a: object, b: object, capacity: int) -> None:
        self._room.setdefault(a, {})[b] = capacity
        self._room.setdefault(b, {}).setdefault(a, 0)

    def near(self, source: object, sink: object) -> set[object]:
        """The points on the source's side of the minimum cut (Edmonds & Karp: shortest ways first)."""
        while True:
            before: dict[object, object] = {source: source}
            queue = deque([source])
            while queue and sink not in before:
                a = queue.popleft()
                for b, room in self._room[a].items():
                    if room and b not in before:
                        before[b] = a
                        queue.append(b)
            if sink not in before:
                return set(before)
            way = [sink]
            while way[-1] != source:
                way.append(before[way[-1]])
            steps = [(a, b) for b, a in pairwise(way)]
            flow = min(self._room[a][b] for a, b in steps)
            for a, b in steps:
                self._room[a][b] -= flow
                self._room[b][a] += flow
