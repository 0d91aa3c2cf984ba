"""Less memory for more computation: values that are needed again late are computed again instead of being kept.

A backward pass needs what the forward pass computed, in the other order. `rematerialise` cuts what is computed before
the moment of the greatest memory into segments, keeps what passes from one segment to a later one, and computes the
rest of a segment a second time when the first of its values is asked for. With about sqrt(n) segments of n layers the
memory is of the order of sqrt(n), for less than one more forward pass (T. Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016, arXiv:1604.06174).

The pass knows nothing of forward and backward: it looks at a schedule. `after` (see `graphc.ops.barrier`) keeps the
second computation from being the first one, and from beginning early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphc import ops
from graphc.errors import OptionError
from graphc.ir.graph import Graph, Node, Value, location, location_of, make, rebuild, remake
from graphc.ir.types import TensorType
from graphc.kernels.schedule import live, peak, schedule
from graphc.ops.spec import Kind

__all__ = ["checkpoints_within", "differentiated_within", "longest_scan", "rematerialise"]


def rematerialise(graph: Graph, budget_bytes: int, measure: Callable[[Graph], int] = peak) -> Graph:
    """The graph recomputing as much as `budget_bytes` of memory asks for; the same graph when it fits as it is.

    `measure` tells how much a graph needs: by default an estimate, or one may plan it completely. Shapes must be known.
    Raises OptionError, saying by how much, when no number of segments meets the budget.
    """
    needs = measure(graph)
    if needs <= budget_bytes:
        return graph
    least = needs
    order = schedule(graph)
    for segments in _numbers(len(order)):
        candidate = _in_segments(graph, order, segments)
        needs = measure(candidate)
        if needs <= budget_bytes:
            return candidate
        least = min(least, needs)
        if needs > 2 * least:  # the segments' borders alone take more than was ever needed
            break
    raise OptionError(
        f"a budget of {budget_bytes:,} bytes cannot be met by computing again: {least:,} bytes are the least, "
        f"{least - budget_bytes:,} too many"
    )


def differentiated_within(
    graph: Graph,
    differentiate: Callable[[Graph], Graph],
    budget_bytes: int,
    measure: Callable[[Graph], int] = peak,
) -> Graph:
    """`differentiate(graph)` in `budget_bytes` of memory.

    First the scans get checkpoints, as many steps apart as the budget allows; what is still missing is left to
    `rematerialise`. Raises OptionError, saying by how much, when both together do not meet the budget.
    """
    every = checkpoints_within(
        lambda n: measure(differentiate(_with_checkpoints(graph, n) if n else graph)), longest_scan(graph), budget_bytes
    )
    return rematerialise(differentiate(_with_checkpoints(graph, every) if every else graph), budget_bytes, measure)


def checkpoints_within(needs: Callable[[int], int], turns: int, budget_bytes: int) -> int:
    """How many turns apart the checkpoints of loops of `turns` turns should be to meet a budget: 0, none, if that is
    enough, else as far apart as will do; where nothing will, what takes the least memory.

    `needs(n)` tells the bytes with checkpoints every n turns.
    """
    best, least, every = 0, needs(0), turns
    while least > budget_bytes and every > 3:
        every //= 2
        if (less := needs(every)) < least:
            best, least = every, less
    return best


def longest_scan(graph: Graph) -> int:
    """The turns of the scan with the most of them, 0 when there is none."""
    return max((_turns(node) for node in graph.nodes if node.op.name == "scan"), default=0)


def _turns(scan: Node) -> int:
    """How many turns a scan takes; 0 where that is not known."""
    length = scan.attrs.get("length")
    turns = scan.inputs[scan.attrs["carries"]].shape[0] if length is None else length
    return turns if isinstance(turns, int) else 0


def _with_checkpoints(graph: Graph, every: int) -> Graph:
    """The graph whose scans keep their carries every so many turns when they are differentiated."""

    def transform(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if node.op.name != "scan" or node.attrs.get("checkpoint", 0) or _turns(node) <= every:
            return remake(node, inputs)
        return make(node.op, *inputs, **{**node.attrs, "checkpoint": every})

    return rebuild(graph, transform)


def _numbers(nodes: int) -> Iterator[int]:
    """Numbers of segments to try: fewer compute less again."""
    n = 2
    while n <= nodes:
        yield n
        n += max(1, n // 3)


def _in_segments(graph: Graph, order: Sequence[Node], segments: int) -> Graph:
    """The graph in which what is computed before the greatest need of memory is computed again, segment by segment."""
    taken = live(graph, order)
    turn = taken.index(max(taken))
    free = _free(order)
    early = {node: k for k, node in enumerate(order[: turn + 1]) if node not in free}
    late = [node for node in order[turn + 1 :] if node not in free]
    read_late = {v for node in late for v in node.inputs if v.node in early}
    number = _segment_numbers([node for node in order if node in early], read_late, segments)

    # what a later segment reads is kept, what only late nodes read is not; the last segment has just been computed
    kept = set(graph.outputs)
    for node in early:
        kept.update(v for v in node.inputs if v.node in early and number[v.node] != number[node])
    dropped = {v for v in read_late if v not in kept and number[v.node] < segments - 1}

    new: dict[Value, Value] = {v: v for node in order if node in early or node in free for v in node.outputs}
    again: dict[int, dict[Value, Value]] = {}
    token: Value | None = None
    for node in late:
        for s in sorted({number[v.node] for v in node.inputs if v in dropped}, reverse=True):
            if s not in again:
                asked = [v for v in dropped if number[v.node] == s]
                inside = {n for n in early if number[n] == s}
                again[s] = _computed_again(asked, inside, kept, token)
        found = [again[number[v.node]].get(v, v) if v in dropped else new[v] for v in node.inputs]
        with location(*location_of(node)):
            new.update(zip(node.outputs, remake(node, tuple(found)), strict=True))
        token = next((new[v] for v in node.outputs if isinstance(v.type, TensorType)), token)
    return graph.with_outputs([new[v] for v in graph.outputs])


def _free(order: Sequence[Node]) -> set[Node]:
    """Inputs, constants, and views of them: they take no memory of the program's own."""
    free: set[Node] = set()
    for node in order:
        view = node.op.kind is Kind.INJECTIVE and node.op.view is not None
        if node.op.kind is Kind.LEAF or (view and all(v.node in free for v in node.inputs)):
            free.add(node)
    return free


def _segment_numbers(nodes: Sequence[Node], counted: set[Value], segments: int) -> dict[Node, int]:
    """Each node's segment: consecutive nodes, equal in the bytes of their `counted` results."""
    sizes = [sum(_bytes(v) for v in node.outputs if v in counted) for node in nodes]
    total, before = max(1, sum(sizes)), 0
    number = {}
    for node, size in zip(nodes, sizes, strict=True):
        number[node] = min(segments - 1, before * segments // total)
        before += size
    return number


def _computed_again(
    asked: Sequence[Value], inside: set[Node], kept: set[Value], token: Value | None
) -> dict[Value, Value]:
    """`asked` computed a second time, by the nodes `inside`, from what is kept; not before `token` is there."""
    if token is None:
        return {}
    new: dict[Value, Value] = {}
    stack = [(v, False) for v in asked]
    while stack:
        v, operands_done = stack.pop()
        if v in new:
            continue
        if v.node not in inside or v in kept:
            waits = v.literal is None and isinstance(v.type, TensorType)
            new[v] = ops.after(v, token) if waits else v
        elif operands_done:
            with location(*location_of(v.node)):
                made = remake(v.node, tuple(new[u] for u in v.node.inputs))
            for old, second in zip(v.node.outputs, made, strict=True):
                new.setdefault(old, second)
        else:
            stack.append((v, True))
            stack += [(u, False) for u in v.node.inputs]
    return new


def _bytes(v: Value) -> int:
    return v.type.nbytes if isinstance(v.type, TensorType) and v.type.is_static else 0
