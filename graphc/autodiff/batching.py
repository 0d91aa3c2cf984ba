"""Programs for many cases at once: every value that depends on the case gets the cases on a new leading axis.

The walk goes from producers to users. What is the same in all cases is left as it is, the very same nodes; the others
are done by their operations' rules (see `graphc.ops.batching`). Rules of control flow stand here, because they batch
their bodies by the same walk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.ir.dims import DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import (
    Graph,
    Node,
    UnusedNames,
    Value,
    constant,
    describe_location,
    inline,
    input_value,
    location,
    location_of,
    make,
    remake,
    toposort,
)
from graphc.ir.types import TensorType, Type, tensor
from graphc.ops.batching import case_by_case, lead, leading, move_axis
from graphc.ops.spec import Batch, Kind

__all__ = ["batch", "batch_graph"]

_BOOL, _INT64 = dtype_of("bool"), dtype_of("int64")
#: which values are batched, in the order of the values that they belong to
Flags = tuple[bool, ...]


def batch(outputs: Sequence[Value], replaced: Mapping[Value, Value], size: DimLike) -> tuple[tuple[Value, ...], Flags]:
    """`outputs` for `size` cases, and which of them depend on the case at all: those have a new leading axis.

    `replaced` gives for every value that differs from case to case the one that holds them all.
    Raises GraphTypeError for an operation on strings, sequences or data-dependent sizes, which has no such form.
    """
    new = dict(replaced)
    # what belongs to traces further out cannot depend on these values (see input_value): the walk does not go there
    level = min((v.node.level for v in replaced), default=0)
    for node in toposort(outputs, level):
        if node.op.kind is Kind.LEAF or node.outputs[0] in new:
            continue
        batched = tuple(v in new for v in node.inputs)
        if not any(batched):
            continue
        with location(*location_of(node)):
            results = _rule(node)(node, tuple(new.get(v, v) for v in node.inputs), batched, size)
        for v, result in zip(node.outputs, results, strict=True):
            _check(v, result, size)
            new[v] = result
    return tuple(new.get(v, v) for v in outputs), tuple(v in new for v in outputs)


def batch_graph(graph: Graph, batched: Flags, size: DimLike, wanted: Flags | None = None) -> tuple[Graph, Flags]:
    """A closed graph whose inputs marked `batched` hold `size` cases, and which of its outputs do then.

    Outputs marked `wanted` hold them in any case.
    """
    inputs = [
        input_value(name, batched_type(v.type, size, v.node)) if b else v
        for v, name, b in zip(graph.inputs, graph.input_names, batched, strict=True)
    ]
    replaced = {v: new for v, new, b in zip(graph.inputs, inputs, batched, strict=True) if b}
    outputs, found = batch(graph.outputs, replaced, size)
    if wanted is not None:
        outputs = tuple(
            lead(v, size) if want and not b else v for v, b, want in zip(outputs, found, wanted, strict=True)
        )
        found = tuple(b or want for b, want in zip(found, wanted, strict=True))
    return Graph(inputs, outputs, graph.output_names), found


def batched_type(t: Type, size: DimLike, node: Node) -> TensorType:
    """The type of `size` values of one type. Raises GraphTypeError unless they are tensors."""
    if not isinstance(t, TensorType):
        raise GraphTypeError(f"{node.op.name} has {t}; only tensors can be batched{describe_location(node)}")
    return t.with_shape((size, *t.shape))


def _check(v: Value, result: Value, size: DimLike) -> None:
    """A rule gives what was asked of it; extents may be known better than before."""
    wanted = batched_type(v.type, size, v.node)
    if result.dtype != wanted.dtype or result.rank != wanted.rank:
        raise AssertionError(f"{v.node.op.name}: the batched result is {result.type}, {wanted} is needed")


def _rule(node: Node) -> Batch:
    op = node.op
    if op.name in CONTROL:
        return CONTROL[op.name]
    if op.batch is not None:
        return op.batch
    if op.kind is Kind.ELEMENTWISE:
        return leading()
    if op.kind is Kind.REDUCE:
        return leading(lambda *, axes: {"axes": tuple(axis + 1 for axis in axes)})
    if op.decompose is not None:
        return through_decomposition
    return case_by_case


def through_decomposition(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    """The rule of an operation that is made of others."""
    assert node.op.decompose is not None
    stand_ins = [
        v if v.literal is not None and not b else input_value(f"operand{k}", v.type)
        for k, (v, b) in enumerate(zip(node.inputs, batched, strict=True))
    ]
    alike = remake(node, tuple(stand_ins))[0].node
    open_ones = [k for k, v in enumerate(stand_ins) if v.literal is None or batched[k]]
    graph = Graph([stand_ins[k] for k in open_ones], alike.op.decompose(alike))  # type: ignore[misc]
    many, _ = batch_graph(graph, tuple(batched[k] for k in open_ones), size, (True,) * len(graph.outputs))
    return inline(many, [operands[k] for k in open_ones])


# ------------------------------------------------------------------------------------------------------- control flow


def _if(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    """One choice for all cases takes one branch; where each case chooses for itself both branches are computed."""
    condition, *rest = operands
    every = (True,) * len(node.types)
    names = ("then_body", "else_body")
    branches = {name: batch_graph(node.attrs[name], batched[1:], size, every)[0] for name in names}
    if not batched[0]:
        return make(node.op, *operands, **{**node.attrs, **branches})
    pairs = zip(*(inline(branches[name], rest) for name in names), strict=True)
    return [choose(condition, a, b) for a, b in pairs]


def choose(condition: Value, a: Value, b: Value) -> Value:
    """The cases of `a` where the condition, bool[size], holds, and of `b` elsewhere."""
    kept = ops.reshape(condition, shape=(*condition.shape, *(1 for _ in a.shape[1:])))
    return ops.select(ops.broadcast_to(kept, shape=a.shape), a, b)


def _scan(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    """One scan: what is walked over keeps its axis in front, the cases come second. A carry that starts the same for
    all cases may differ after a turn: then it is batched from the start."""
    carries, scanned = node.attrs["carries"], node.attrs["scanned"]
    body, flags = _steady(node.attrs["body"], batched, range(carries), 0, size)
    given = []
    for k, (v, before, after) in enumerate(zip(operands, batched, flags, strict=True)):
        moved = move_axis(v, 0, 1) if before and carries <= k < carries + scanned else v
        given.append(lead(moved, size, before == after))
    results = make(node.op, *given, **{**node.attrs, "body": body[0]})
    return [
        lead(v, size) if not b else v if k < carries else move_axis(v, 1, 0)
        for k, (v, b) in enumerate(zip(results, body[1], strict=True))
    ]


def _steady(
    body: Graph, batched: Flags, carried: Sequence[int], first: int, size: DimLike
) -> tuple[tuple[Graph, Flags], Flags]:
    """A loop's batched body (with the flags of its outputs) and the flags of its inputs, of which those in `carried`
    come around again as the outputs from `first` on: a carry that is batched after a turn is so before it."""
    flags = batched
    while True:
        _, found = batch_graph(body, flags, size)
        around = dict(zip(carried, found[first:], strict=False))
        grown = tuple(b or around.get(k, False) for k, b in enumerate(flags))
        if grown == flags:
            wanted = tuple(
                flags[carried[k - first]] if 0 <= k - first < len(carried) else False for k in range(len(found))
            )
            return batch_graph(body, flags, size, wanted), flags
        flags = grown


def _loop(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    """Where all cases take the same turns, a loop over them; else one that runs until the last case is done, and keeps
    what the others had when they were."""
    carries, body = node.attrs["carries"], node.attrs["body"]
    # the condition is carried too: input 1, output 0
    carried = (1, *range(2, 2 + carries))
    made, flags = _steady(body, batched, carried, 0, size)
    if flags[0] or flags[1]:
        return _until_all_are_done(node, operands, batched, size)
    given = [lead(v, size, before == after) for v, before, after in zip(operands, batched, flags, strict=True)]
    results = make(node.op, *given, **{**node.attrs, "body": made[0]})
    return [
        lead(v, size) if not b else v if k < carries else move_axis(v, 1, 0)
        for k, (v, b) in enumerate(zip(results, made[1][1:], strict=True))
    ]


def _until_all_are_done(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    carries, body = node.attrs["carries"], node.attrs["body"]
    if len(node.types) > carries:
        raise GraphTypeError(
            "a loop whose number of turns differs from case to case cannot be batched when it stacks results of its "
            f"turns: their lengths differ{describe_location(node)}. Where it is a gradient that stacks them, which needs "
            "the values of every turn, give the while_loop a `bound=`; otherwise carry an array of fixed size instead"
        )
    trips, going, *rest = operands
    state_flags = (True,) * carries + batched[2 + carries :]
    rest = [lead(v, size, before == after) for v, before, after in zip(rest, batched[2:], state_flags, strict=True)]
    many, _ = batch_graph(body, (False, True, *state_flags), size, (True,) * len(body.outputs))

    each = lead(trips, size, batched[0])
    active = ops.logical_and(lead(going, size, batched[1]), ops.gt(each, constant(np.int64(0))))
    wanted = {"turn": tensor(_INT64), "go": tensor(_BOOL), "active": active.type, "limit": each.type}
    unused = UnusedNames(body.input_names)
    turn, go, mine, limit = (input_value(unused(name), t) for name, t in wanted.items())
    state, held = many.inputs[2 : 2 + carries], many.inputs[2 + carries :]
    again, *after = inline(many, [turn, mine, *state, *held])
    kept = [choose(mine, b, a) for a, b in zip(state, after, strict=True)]
    left = ops.logical_and(ops.logical_and(mine, again), ops.lt(ops.add(turn, constant(np.int64(1))), limit))
    whole = Graph((turn, go, mine, *state, limit, *held), (_any(left), left, *kept))
    longest = ops.reduce_max(each, axes=(0,)) if batched[0] else trips
    made = make(
        node.op, longest, _any(active), active, *rest[:carries], each, *rest[carries:], body=whole, carries=1 + carries
    )
    return made[1:]


def _any(active: Value) -> Value:
    return ops.reduce_or(active, axes=(0,))


def _call(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    body, found = batch_graph(node.attrs["body"], batched, size)
    results = make(node.op, *operands, **{**node.attrs, "body": body})
    return [lead(v, size, b) for v, b in zip(results, found, strict=True)]


def _custom_vjp(node: Node, operands: tuple[Value, ...], batched: Flags, size: DimLike) -> Sequence[Value]:
    """Everything that the backward function sees belongs to a case, so all arguments are batched: the sum of an
    argument's cotangents over the cases is left to the gradient of its repetition."""
    arguments = node.attrs["arguments"]
    flags = (True,) * arguments + batched[arguments:]
    given = [lead(v, size, before == after) for v, before, after in zip(operands, batched, flags, strict=True)]
    bodies = {}
    for name in ("body", "forward", "backward"):
        graph = node.attrs[name]
        inputs = flags if name != "backward" else (True,) * len(graph.inputs)
        bodies[name] = batch_graph(graph, inputs, size, (True,) * len(graph.outputs))[0]
    return make(node.op, *given, **{**node.attrs, **bodies})


#: the rules of operations with bodies, by name
CONTROL: dict[str, Callable[[Node, tuple[Value, ...], Flags, DimLike], Sequence[Value]]] = {
    "call": _call,
    "custom_vjp": _custom_vjp,
    "if_": _if,
    "loop": _loop,
    "scan": _scan,
}
