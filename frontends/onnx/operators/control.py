"""If, Loop and Scan: closed bodies, what they read from outside as operands.

ONNX lets a carried value change its shape from turn to turn. Such a loop is unrolled where the number of turns is
known; otherwise the extents that change become symbols of the body.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import INT64, reshape, to
from graphc.frontends.onnx.registry import importer
from graphc.frontends.onnx.unranked import is_unranked
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.types import SequenceType, Type, tensor
from graphc.ops.control import trip_length
from graphc.ops.typing import fits, join

__all__: list[str] = []

_UNROLL_TURNS = 256
_UNROLL_NODES = 20_000
_FIXPOINT_TURNS = 8


@importer("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def convert_if(c: Context, condition: Value) -> Sequence[Value]:
    """A known condition takes its branch in place of the node."""
    then_branch, else_branch = c.graph("then_branch"), c.graph("else_branch")
    known = c.known(condition)
    if known is not None:
        return c.inline(then_branch if known.reshape(()).item() else else_branch)
    then_body, then_captures = c.body(then_branch, ())
    else_body, else_captures = c.body(else_branch, ())
    operands = list(dict.fromkeys([*then_captures, *else_captures]))
    bodies = [
        _takes(body, captures, operands) for body, captures in ((then_body, then_captures), (else_body, else_captures))
    ]
    return _outputs(ops.if_(reshape(condition, ()), *operands, then_body=bodies[0], else_body=bodies[1]))


def _takes(body: Graph, captures: Sequence[Value], operands: Sequence[Value]) -> Graph:
    """The body with an input for every operand, used or not."""
    own = dict(zip(captures, body.inputs, strict=True))
    inputs = [own.get(o) or input_value(f"unused{k}", o.type) for k, o in enumerate(operands)]
    return Graph(inputs, body.outputs)


def _outputs(result: Value | tuple[Value, ...]) -> Sequence[Value]:
    return (result,) if isinstance(result, Value) else result


@importer("Loop", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def convert_loop(
    c: Context, count: Value | None = None, condition: Value | None = None, *initial: Value
) -> Sequence[Value]:
    graph = c.graph("body")
    trip = constant(np.int64(np.iinfo(np.int64).max)) if count is None else reshape(to(count, INT64), ())
    start = constant(np.True_) if condition is None else reshape(condition, ())
    types: list[Type] = [v.type for v in initial]
    for _ in range(_FIXPOINT_TURNS):
        body, captures = _loop_body(c, graph, types)
        new = [v.type for v in body.outputs[1 : 1 + len(initial)]]
        if len(new) < len(initial):
            c.invalid(f"its body has {len(body.outputs)} outputs for {len(initial)} carried values")
        if all(_settled(t, declared) for t, declared in zip(new, types, strict=True)):
            break
        unrolled = _unroll(c, graph, trip, start, initial, len(body.nodes))
        if unrolled is not None:
            return unrolled
        types = _generalise(c, types, new)
    else:
        c.unsupported("a carried value changes its type from turn to turn in a way that symbols cannot express")
    # an unranked sequence is empty: it can take the type that it has after a turn
    initial = tuple(
        ops.sequence_empty(element=t.element) if is_unranked(v.type) and isinstance(t, SequenceType) else v
        for v, t in zip(initial, types, strict=True)
    )
    length = trip_length(trip, start, body)
    options = {} if length is None else {"length": length}
    return _outputs(ops.loop(trip, start, *initial, *captures, body=body, carries=len(initial), **options))


def _loop_body(c: Context, graph: GraphProto, carried: Sequence[Type]) -> tuple[Graph, list[Value]]:
    # inside the body the condition holds, or the body would not run
    flags: list[Type] = [tensor("int64"), tensor("bool")]
    body, captures = c.body(graph, [*flags, *carried], {1: constant(np.True_)})
    if not body.outputs:
        c.invalid("its body has no outputs")
    return Graph(body.inputs, [reshape(body.outputs[0], ()), *body.outputs[1:]]), captures


def _settled(new: Type, declared: Type) -> bool:
    return new == declared or (fits(new, declared) and not is_unranked(declared))


def _generalise(c: Context, types: Sequence[Type], new: Sequence[Type]) -> list[Type]:
    """Types that hold before and after a turn: extents that change become symbols."""
    pairs = enumerate(zip(types, new, strict=True))
    try:
        return [
            t if _settled(n, t) else n if is_unranked(t) else join(t, n, f"carried value {k}") for k, (t, n) in pairs
        ]
    except GraphTypeError as e:
        c.unsupported(str(e))


def _unroll(
    c: Context, graph: GraphProto, trip: Value, condition: Value, initial: Sequence[Value], nodes: int
) -> Sequence[Value] | None:
    """The turns one after the other, when their number is known and small; None otherwise."""
    known = c.known(trip)
    if known is None or isinstance(known.item(), Dim) or known.item() > _UNROLL_TURNS:
        return None
    if known.item() * nodes > _UNROLL_NODES:
        return None
    state = list(initial)
    stacked: list[list[Value]] | None = None
    for turn in range(known.item()):
        go = c.known(condition)
        if go is None:
            return None
        if not go.item():
            break
        results = c.inline(graph, [constant(np.int64(turn)), constant(np.True_), *state])
        condition, state = reshape(results[0], ()), results[1 : 1 + len(initial)]
        pieces = results[1 + len(initial) :]
        stacked = stacked or [[] for _ in pieces]
        for column, piece in zip(stacked, pieces, strict=True):
            column.append(reshape(piece, (1, *piece.shape)))
    if stacked is None:  # no turn: the loop operation knows the types of its empty results
        return None
    if any(len({v.shape for v in column}) > 1 for column in stacked):
        c.unsupported("the turns' scan outputs have different shapes")
    return [*state, *(ops.concat(*column, axis=0) for column in stacked)]


@importer("Scan", 8)
def scan_8(c: Context, *operands: Value | None) -> Sequence[Value]:
    """Every operand has a batch axis before all others: one scan for each of the batch."""
    if operands and operands[0] is not None:
        c.unsupported("sequence lengths")
    values = [v for v in operands[1:] if v is not None]
    batch = values[0].shape[0] if values else 0
    if not isinstance(batch, int) or batch > _UNROLL_TURNS or batch == 0:
        c.unsupported(f"a batch of {batch}")
    scanned = c.int("num_scan_inputs")
    reversed_inputs = c.ints("directions", (0,) * scanned)
    rows = []
    for b in range(batch):
        one = [ops.gather(v, constant(np.int64(b)), axis=0) for v in values]
        rows.append(_scan(c, one, scanned, (0,) * scanned, reversed_inputs, None, None))
    return [ops.concat(*(reshape(v, (1, *v.shape)) for v in column), axis=0) for column in zip(*rows, strict=True)]


@importer("Scan", 9, 11, 16, 19, 21, 23, 24, 25)
def convert_scan(c: Context, *operands: Value) -> Sequence[Value]:
    scanned = c.int("num_scan_inputs")
    axes = c.ints("scan_input_axes", (0,) * scanned)
    directions = c.ints("scan_input_directions", (0,) * scanned)
    if not 0 <= scanned <= len(operands) or len(axes) != scanned or len(directions) != scanned:
        c.invalid(
            f"{scanned} of {len(operands)} operands are scanned, with axes {list(axes)}, directions {list(directions)}"
        )
    return _scan(
        c,
        operands,
        scanned,
        axes,
        directions,
        c.ints("scan_output_axes", None),
        c.ints("scan_output_directions", None),
    )


def _scan(
    c: Context,
    operands: Sequence[Value],
    scanned: int,
    axes: Sequence[int],
    directions: Sequence[int],
    output_axes: Sequence[int] | None,
    output_directions: Sequence[int] | None,
) -> Sequence[Value]:
    graph = c.graph("body")
    carries = len(operands) - scanned
    initial = operands[:carries]
    rows = []
    for v, axis, direction in zip(operands[carries:], axes, directions, strict=True):
        v = _move_axis(v, c.axis(axis, v.rank), 0)
        rows.append(_flip(v) if direction else v)
    slices: list[Type] = [v.tensor.with_shape(v.shape[1:]) for v in rows]
    types: list[Type] = [v.type for v in initial]
    for _ in range(_FIXPOINT_TURNS):
        body, captures = c.body(graph, [*types, *slices])
        new = [v.type for v in body.outputs[:carries]]
        if len(new) < carries:
            c.invalid(f"its body has {len(body.outputs)} outputs for {carries} carried values")
        if all(_settled(t, declared) for t, declared in zip(new, types, strict=True)):
            break
        types = _generalise(c, types, new)
    results = list(_outputs(ops.scan(*initial, *rows, *captures, body=body, carries=carries, scanned=scanned)))
    for k in range(carries, len(results)):
        v = results[k]
        if output_directions is not None and output_directions[k - carries]:
            v = _flip(v)
        if output_axes is not None:
            v = _move_axis(v, 0, c.axis(output_axes[k - carries], v.rank))
        results[k] = v
    return results


def _flip(x: Value) -> Value:
    """The first axis from its end."""
    rest = x.rank - 1
    starts, stops = (x.shape[0] - 1, *[0] * rest), (-1, *x.shape[1:])
    return ops.slice(x, starts=starts, stops=stops, steps=(-1, *[1] * rest))


def _move_axis(x: Value, source: int, target: int) -> Value:
    if source == target:
        return x
    order = [k for k in range(x.rank) if k != source]
    order.insert(target, source)
    return ops.transpose(x, perm=tuple(order))
