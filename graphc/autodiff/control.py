"""Gradients of control flow: of loops backwards loops, of a branch a branch, of a kept function its inside.

The gradient of a loop is a scan in the other direction. One turn of it is the pullback of one turn of the loop: it takes
the cotangents of the turn's results and gives those of the turn's operands. Carried values send theirs to the turn
before, those of slices are stacked, those of captures are summed.

What the pullback reads of the forward turn must be there when the backward loop runs. Since nodes are interned, those
are the forward body's own values: the forward loop also returns a minimum cut of them, stacked (see
`graphc.autodiff.cut`), and the backward turn computes the rest from these, the slices and the captures. The loop that
returns more and the one that the loss reads are made one by `graphc.autodiff.merge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from graphc import ops
from graphc.autodiff.accumulate import total
from graphc.autodiff.batching import batch_graph
from graphc.autodiff.checkpoint import in_segments
from graphc.autodiff.cut import expensive, smallest_cut
from graphc.autodiff.merge import returning
from graphc.autodiff.reverse import PROBE_LEVEL, active_nodes, carries_gradient, pullback, through_decomposition
from graphc.errors import NotDifferentiableError
from graphc.ir.dims import DimLike
from graphc.ir.graph import (
    Graph,
    Node,
    UnusedNames,
    Value,
    describe_location,
    inline,
    input_value,
    location,
    location_of,
    make,
    substitute,
    toposort,
)
from graphc.ir.types import TensorType, Type
from graphc.ops.batching import lead
from graphc.ops.control import loop as loop_op
from graphc.ops.control import scan as scan_op
from graphc.ops.gradient import zeros
from graphc.ops.spec import Gradient

__all__ = ["GRADIENTS", "with_outputs"]

Cotangents = Sequence[Value | None]


# ------------------------------------------------------------------------------------------------------ one operation


def scan_gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Cotangents:
    """A scan in the other direction."""
    attrs, operands = node.attrs, node.inputs
    if attrs.get("checkpoint", 0) or attrs.get("window", 0):
        return through_decomposition(node, cotangents, wanted, in_segments)
    a, b = attrs["carries"], attrs["carries"] + attrs["scanned"]
    rows = [v.tensor.with_shape(v.shape[1:]) for v in operands[a:b]]
    body = _fitted(node, attrs["body"], [*(v.type for v in operands[:a]), *rows, *(v.type for v in operands[b:])])
    length = attrs.get("length")
    turns = _Loop(
        node=node,
        body=body,
        state=body.inputs[:a],
        slices=body.inputs[a:b],
        held=body.inputs[b:],
        new=body.outputs[:a],
        stacked=body.outputs[a:],
        rows=operands[a:b],
        captures=operands[b:],
        length=operands[a].shape[0] if length is None else length,
        reverse=attrs.get("reverse", False),
        save=attrs.get("save", "contractions"),
    )
    return _backwards(turns, cotangents[:a], cotangents[a:], wanted)


def loop_gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Cotangents:
    """A scan over the turns that the loop took."""
    attrs, operands = node.attrs, node.inputs
    carries = attrs["carries"]
    body = _fitted(node, attrs["body"], [v.type for v in operands])
    turns = _Loop(
        node=node,
        body=body,
        around=body.inputs[:2],
        state=body.inputs[2 : 2 + carries],
        held=body.inputs[2 + carries :],
        new=body.outputs[1 : 1 + carries],
        stacked=body.outputs[1 + carries :],
        captures=operands[2 + carries :],
        length=attrs.get("length"),
    )
    return [None, None, *_backwards(turns, cotangents[:carries], cotangents[carries:], wanted[2:])]


def if_gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Cotangents:
    """A branch on the same condition, whose bodies compute again what they need of the forward bodies."""
    condition, *operands = node.inputs
    given = [k for k, g in enumerate(cotangents) if g is not None]
    arriving = [g for g in cotangents if g is not None]
    sources = [k for k, want in enumerate(wanted[1:]) if want]
    pulled: list[tuple[Graph, list[Value], Cotangents]] = []
    for name in ("then_body", "else_body"):
        body = _fitted(node, node.attrs[name], [v.type for v in operands])
        unused = UnusedNames(body.input_names)
        seeds = [input_value(unused(f"ct{k}"), g.type) for k, g in zip(given, arriving, strict=True)]
        sent: list[Value | None] = [None] * len(cotangents)
        for k, seed in zip(given, seeds, strict=True):
            out = body.outputs[k]  # the branches' results may differ in extents
            sent[k] = seed if seed.type == out.type else ops.reshape(seed, shape=out.shape)
        pulled.append((body, seeds, pullback(body.outputs, sent, [body.inputs[k] for k in sources])))
    there = [n for n in range(len(sources)) if any(found[n] is not None for _, _, found in pulled)]
    result: list[Value | None] = [None] * len(node.inputs)
    if not there:
        return result
    bodies = []
    for body, seeds, found in pulled:
        outputs = []
        for n in there:
            g, v = found[n], body.inputs[sources[n]]
            outputs.append(zeros(v.shape, v) if g is None else g)
        bodies.append(Graph((*body.inputs, *seeds), outputs))
    # what neither reads is not passed: in forward mode a cotangent must drop out that no derivative depends on
    read = {k for body in bodies for k, v in enumerate(body.inputs) if v in body.users or v in body.outputs}
    then_body, else_body = (Graph([body.inputs[k] for k in sorted(read)], body.outputs) for body in bodies)
    passed = [v for k, v in enumerate((*operands, *arriving)) if k in read]
    made = make(node.op, condition, *passed, then_body=then_body, else_body=else_body)
    for n, g in zip(there, made, strict=True):
        result[1 + sources[n]] = g
    return result


def call_gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Cotangents:
    """The gradient of what the body does; with `remat` of what it does again, once a cotangent has arrived."""
    body = node.attrs["body"]
    # forward mode's probes are never computed, so nothing can wait for them
    tokens = [g for g in cotangents if g is not None and g.node.level < PROBE_LEVEL]
    if not node.attrs.get("remat", False) or not tokens:
        return through_decomposition(node, cotangents, wanted, lambda n: inline(body, n.inputs))
    again = [
        ops.after(v, *tokens) if want or (v.literal is None and isinstance(v.type, TensorType)) else v
        for v, want in zip(node.inputs, wanted, strict=True)
    ]
    found = iter(pullback(inline(body, again), cotangents, [v for v, want in zip(again, wanted, strict=True) if want]))
    return [next(found) if want else None for want in wanted]


#: by operation; their entries reach these through `graphc.ops.control.by_walk`
GRADIENTS: Mapping[str, Gradient] = {
    "scan": scan_gradient,
    "loop": loop_gradient,
    "if_": if_gradient,
    "call": call_gradient,
}


# ----------------------------------------------------------------------------------------------------- loops backwards


@dataclass(frozen=True)
class _Loop:
    """A loop as its gradient sees it: the values of the body by their roles, and what stands for them outside."""

    node: Node
    body: Graph
    around: Sequence[Value] = ()  # the turn's number and the condition, which have no derivative
    state: Sequence[Value] = ()
    slices: Sequence[Value] = ()
    held: Sequence[Value] = ()
    new: Sequence[Value] = ()  # the state after the turn
    stacked: Sequence[Value] = ()
    rows: Sequence[Value] = ()  # the operands that `slices` walk over
    captures: Sequence[Value] = ()  # the operands that `held` stand for
    length: DimLike | None = None  # None: only a run can tell
    reverse: bool = False
    save: str = "contractions"

    @property
    def sources(self) -> tuple[Value, ...]:
        """The inputs that may have cotangents."""
        return (*self.state, *self.slices, *self.held)


def _backwards(loop: _Loop, finals: Cotangents, stacks: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    """The cotangents of initial state, rows and captures from those of the final state and of the stacked results."""
    unused = UnusedNames(loop.body.input_names)
    turn = _pull(loop, finals, stacks, wanted, unused)
    asked = dict(zip(loop.sources, wanted, strict=True))
    found = {v: g for v, g in turn.pulled.items() if g is not None and (asked[v] or v in loop.state)}
    summed = {v: found[v] for v in loop.held if v in found}
    # products after the loop need all turns' factors at once, which is what checkpoints are to avoid
    addends, products = _sums(summed) if loop.save == "contractions" else (summed, {})

    # what goes from turn to turn: cotangents of the state, and sums
    carried: list[_Carried] = []
    for k in turn.live:
        v, g = loop.state[k], finals[k]
        zero = zeros(v.shape, v)
        carried.append(_Carried(zero if g is None else g, turn.seeds[k], found.get(v, zero)))
    for v, g in addends.items():
        so_far = input_value(unused(f"sum_{v.node.attrs['name']}"), v.type)
        carried.append(_Carried(zeros(v.shape, v), so_far, ops.add(so_far, g)))
    sliced = {v: found[v] for v in loop.slices if v in found}
    factors = [f for pairs in products.values() for pair in pairs for f in pair]
    last, stacked = _turns_back(loop, turn, stacks, carried, (*sliced.values(), *factors), unused)

    result: dict[Value, Value] = {loop.state[k]: g for k, g in zip(turn.live, last, strict=False)}
    result |= {v: stacked[g] for v, g in sliced.items()}
    sums = dict(zip(addends, last[len(turn.live) :], strict=True))
    for v in summed:
        parts = [sums[v]] if v in sums else []
        result[v] = total(parts + [_product_over_turns(stacked[a], stacked[g]) for a, g in products.get(v, ())])
    return [result.get(v) if asked[v] else None for v in loop.sources]


class _Carried(NamedTuple):
    """What the backward loop carries: its initial value, and in a turn what comes in and what goes out."""

    initial: Value
    before: Value
    after: Value


def _turns_back(
    loop: _Loop,
    turn: _Turn,
    stacks: Cotangents,
    carried: Sequence[_Carried],
    stacking: Iterable[Value],
    unused: UnusedNames,
) -> tuple[tuple[Value, ...], dict[Value, Value]]:
    """The backward loop: the last of what is carried, and the stacks of values of its turns, `stacking` among them."""
    stacking = list(dict.fromkeys(stacking))
    results = [*(c.after for c in carried), *stacking]
    later = _depending_on((*turn.seeds.values(), *turn.rows.values()), results)
    kept = _kept(loop, results, later)
    # stacks that there are anyway
    stacked = {**dict(zip(loop.slices, loop.rows, strict=True)), **dict(zip(kept, _run(loop, kept), strict=True))}
    stand_ins = {v: input_value(unused(f"kept{k}"), v.type) for k, v in enumerate(kept)}
    early = [v for v in stacking if v not in stacked and v not in later]
    stacked |= _for_all_turns(loop, early, stand_ins, stacked)
    new = [v for v in stacking if v not in stacked]
    if not carried and not new:
        return (), stacked
    outputs = substitute([*(c.after for c in carried), *new], stand_ins)

    read = {v for node in toposort(outputs) for v in node.outputs if node.op.name == "input"}
    rows = [(v, g) for k, v in turn.rows.items() if (g := stacks[k]) is not None]
    rows += [*((stand_ins[v], stacked[v]) for v in kept), *zip(loop.slices, loop.rows, strict=True)]
    rows = [(v, row) for v, row in rows if v in read]
    if not rows and loop.length is None:  # the turns are counted by walking over their numbers
        rows = [(loop.around[0], _run(loop, [loop.around[0]])[0])]
    captures = [(v, capture) for v, capture in zip(loop.held, loop.captures, strict=True) if v in read]
    made = make(
        scan_op,
        *(c.initial for c in carried),
        *(row for _, row in rows),
        *(capture for _, capture in captures),
        body=Graph([*(c.before for c in carried), *(v for v, _ in rows), *(v for v, _ in captures)], outputs),
        carries=len(carried),
        scanned=len(rows),
        reverse=not loop.reverse,
        save=loop.save,
        **({} if rows else {"length": loop.length}),
    )
    return made[: len(carried)], stacked | dict(zip(new, made[len(carried) :], strict=True))


@dataclass(frozen=True)
class _Turn:
    """The pullback of one turn."""

    live: list[int]  # the carried values through which cotangents go from turn to turn
    seeds: dict[int, Value]  # their cotangents after the turn
    rows: dict[int, Value]  # cotangents of the turn's slices of stacked results
    pulled: dict[Value, Value | None]  # what arrives at the turn's inputs


def _pull(loop: _Loop, finals: Cotangents, stacks: Cotangents, wanted: Sequence[bool], unused: UnusedNames) -> _Turn:
    """The pullback of a turn. A carried value takes part when it depends on something wanted and when some turn sends
    a cotangent to it: the least set that is closed under "the turn sends one to it" is found by trying."""
    sources = _depending(loop, [v for v, want in zip(loop.sources, wanted, strict=True) if want])
    seeds = {k: input_value(unused(f"ct_{v.node.attrs['name']}"), v.type) for k, v in enumerate(loop.state)}
    rows = {
        k: input_value(unused(f"ct_out{k}"), v.type)
        for k, (v, g) in enumerate(zip(loop.stacked, stacks, strict=True))
        if g is not None
    }
    live = {k for k, g in enumerate(finals) if g is not None and loop.state[k] in sources}
    while True:
        arriving = [seeds[k] if k in live else None for k in range(len(loop.new))]
        arriving += [rows.get(k) for k in range(len(loop.stacked))]
        pulled = dict(zip(sources, pullback((*loop.new, *loop.stacked), arriving, sources), strict=True))
        reached = {k for k, v in enumerate(loop.state) if pulled.get(v) is not None}
        if reached <= live:
            return _Turn(sorted(live), seeds, rows, pulled)
        live |= reached


def _depending(loop: _Loop, wanted: Iterable[Value]) -> list[Value]:
    """The inputs of a turn that are wanted, or depend on such ones by way of the turns before."""
    found = dict.fromkeys(wanted)
    while True:
        active = set(active_nodes(loop.new, found))
        more = [
            old
            for old, new in zip(loop.state, loop.new, strict=True)
            if old not in found and carries_gradient(old.type) and (new in found or new.node in active)
        ]
        if not more:
            return list(found)
        found |= dict.fromkeys(more)


def _depending_on(seeds: Iterable[Value], results: Sequence[Value]) -> set[Value]:
    """The values on the way to `results` that depend on cotangents, these included."""
    found = set(seeds)
    for node in toposort(results):
        if any(v in found for v in node.inputs):
            found.update(node.outputs)
    return found


def _kept(loop: _Loop, results: Sequence[Value], later: set[Value]) -> list[Value]:
    """The values of a forward turn to keep for the backward turn that computes `results` by way of those in `later`."""
    needed = dict.fromkeys(results)
    for node in toposort(results):
        if node.outputs and node.outputs[0] in later:
            needed |= dict.fromkeys(node.inputs)
    return smallest_cut(
        [v for v in needed if v not in later],
        {*loop.around, *loop.state},
        expensive if loop.save == "contractions" else lambda v: False,
    )


def _for_all_turns(
    loop: _Loop, values: Sequence[Value], stand_ins: Mapping[Value, Value], stacked: Mapping[Value, Value]
) -> dict[Value, Value]:
    """Stacks of values that no cotangent changes, such as the row that a vector is in a product: all turns at once, from
    what is stacked already. What lies between is cheap, or it would have been kept."""
    if not values:
        return {}
    turns = next(iter(stacked.values())).shape[0] if stacked else loop.length
    if turns is None:
        turns = _run(loop, [loop.around[0]])[0].shape[0]
    inputs = [*(stand_ins.get(v, v) for v in stacked), *loop.held]
    one = Graph(inputs, substitute(values, stand_ins))
    every, found = batch_graph(one, (True,) * len(stacked) + (False,) * len(loop.held), turns)
    made = inline(every, [*stacked.values(), *loop.captures])
    return {v: lead(x, turns, b) for v, x, b in zip(values, made, found, strict=True)}


def _run(loop: _Loop, values: Sequence[Value]) -> list[Value]:
    """`values` of every turn, stacked: results of the loop, which returns them as well."""
    return with_outputs(loop.node, loop.body, values)


def with_outputs(node: Node, body: Graph, values: Sequence[Value]) -> list[Value]:
    """`values` of the body of a scan or loop, stacked; of those that it does not return yet, a like loop's that does."""
    fixed = node.attrs["carries"] + (1 if node.op is loop_op else 0)
    known = list(dict.fromkeys((*body.outputs[fixed:], *values)))
    outputs = (*body.outputs, *(v for v in known if v not in body.outputs[fixed:]))
    carries: int = node.attrs["carries"]
    made = node.outputs
    if outputs != node.attrs["body"].outputs:
        more = Graph(body.inputs, outputs)
        types = node.op.infer(*(v.type for v in node.inputs), **{**node.attrs, "body": more})
        if len(node.types) > carries:  # where the run alone knows the number of turns, it keeps the name that it has
            turns = node.outputs[carries].shape[0]
            types = (*node.types, *(t.with_shape((turns, *t.shape[1:])) for t in types[len(node.types) :]))
        with location(*location_of(node)):
            made = returning(node, node.inputs, more, types)
    at = {v: k for k, v in reversed(list(enumerate(outputs[fixed:])))}
    return [made[carries + at[v]] for v in values]


# ------------------------------------------------------------------------------------------------------ sums over turns


def _sums(found: Mapping[Value, Value]) -> tuple[dict[Value, Value], dict[Value, list[tuple[Value, Value]]]]:
    """Cotangents of captures as what is added up turn by turn, and as products that are taken after the loop.

    sum over turns of transpose(a) g = transpose(A) G, with the turns' factors one below the other: one large product
    instead of many small ones, and no sum that every turn reads and writes.
    """
    addends: dict[Value, Value] = {}
    products: dict[Value, list[tuple[Value, Value]]] = {}
    for v, cotangent in found.items():
        rest = []
        for term in _terms(cotangent):
            pair = _factors(term)
            if pair is None:
                rest.append(term)
            else:
                products.setdefault(v, []).append(pair)
        if rest:
            addends[v] = total(rest)
    return addends, products


def _terms(v: Value) -> list[Value]:
    """The values whose sum `v` is."""
    terms, stack = [], [v]
    while stack:
        term = stack.pop()
        if term.node.op.name == "add":
            stack += reversed(term.node.inputs)
        else:
            terms.append(term)
    return terms


def _factors(v: Value) -> tuple[Value, Value] | None:
    """(a, g) when `v` is the product of transposed a with g, and no smaller than the two together."""
    node = v.node
    if node.op.name != "dot" or v.rank != 2:
        return None
    left, g = node.inputs
    if left.node.op.name != "transpose" or left.node.attrs["perm"] != (1, 0):
        return None
    a = left.node.inputs[0]
    sizes = [prod(t.shape) if t.tensor.is_static else 0 for t in (a, g)]
    if v.tensor.is_static and sum(sizes) > prod(v.shape):
        return None
    return a, g


def _product_over_turns(a: Value, g: Value) -> Value:
    """The sum over turns of transpose(a) g, for stacks a[turns, m, k] and g[turns, m, n]."""
    rows = [ops.reshape(v, shape=(v.shape[0] * v.shape[1], v.shape[2])) for v in (a, g)]
    return ops.dot(ops.transpose(rows[0], perm=(1, 0)), rows[1])


# -------------------------------------------------------------------------------------------------------------- bodies


def _fitted(node: Node, body: Graph, types: Sequence[Type]) -> Graph:
    """The body for inputs of exactly these types, where its declared ones leave extents open.

    Raises NotDifferentiableError when a carried value changes its extents from turn to turn."""
    if any(v.type != t for v, t in zip(body.inputs, types, strict=True)):
        inputs = [input_value(v.node.attrs["name"], t) for v, t in zip(body.inputs, types, strict=True)]
        body = Graph(inputs, inline(body, inputs))
    if node.op is scan_op or node.op is loop_op:
        first, skip = (2, 1) if node.op is loop_op else (0, 0)
        for k in range(node.attrs["carries"]):
            before, after = body.inputs[first + k].type, body.outputs[skip + k].type
            if before != after and carries_gradient(before):
                raise NotDifferentiableError(
                    f"{node.op.name}: carried value {k} is {before} before a turn and {after} after it; the gradient "
                    f"needs every turn's to be of one type{describe_location(node)}"
                )
    return body
