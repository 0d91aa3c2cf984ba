"""Layout: convolutions and what lies between them work on blocked channels; weights are packed.

Convolution kernels want a vector register to hold channels, so activations are kept as [N, blocks, H, W, lanes] through
whole chains of layers (see graphc.ops.layout). The pass walks the graph once, forward, and keeps for every value its
plain form, its blocked form, or both:

- a convolution takes its operand blocked and gives its result blocked;
- everything that can work on blocks as well as on channels does so when an operand is blocked: elementwise operations,
  and those in `blocked.TRANSFERS`;
- whatever cannot, takes the plain form. A conversion is made at the first use, once.

What becomes of convolutions and matrix products themselves is in `contractions`.

Lanes past the last channel hold leftovers. They meet only weights that are zero, so all that matters is that they stay
finite; operations that could make them otherwise (whose entries do not say `keeps_finite`) work on the plain form.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from graphc import ops
from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, constant, location, remake
from graphc.ir.trace import Trace, absorb, is_explaining, record, refuse, trace
from graphc.kernels.choice import ALGORITHMS
from graphc.kernels.machine import Machine
from graphc.ops.spec import Kind
from graphc.passes.blocked import TRANSFERS, Blocked, Forms, arranged, picked
from graphc.passes.contractions import CYCLES_PER_BYTE_MOVED, Contractions, is_known
from graphc.passes.match import channels_chosen, uniform

__all__ = ["block_layout", "pack_only"]

#: blocks of half the machine's lanes must be estimated to take at most this share of the time: their arithmetic is no
#: faster, and everything else takes twice the instructions
HALF_WIDTH_MUST_SAVE = 0.95


def block_layout(
    graph: Graph, machine: Machine, threads: int, algorithms: frozenset[str] = ALGORITHMS, narrow: bool = True
) -> Graph:
    """The graph with blocked activations and packed weights; all shapes must be known.

    `algorithms` names those allowed that do less arithmetic, and round otherwise, than the sums they replace: "winograd"
    (minimal filtering) and "strassen"; `narrow` allows kernels that multiply bfloat16, which take subnormal numbers for 0.
    """

    def arrange(g: Graph) -> Graph:
        best = _attempt(g, machine, machine, threads, algorithms, narrow)
        if best.misfits and machine.narrower is not None:
            half = _attempt(g, machine, machine.narrower, threads, algorithms, narrow)
            if half.cycles < HALF_WIDTH_MUST_SAVE * best.cycles:
                best = half
        absorb(best.trace)
        return best.graph

    return deep(arrange)(graph)


class _Attempt(NamedTuple):
    """A graph in blocks, the cycles that it is estimated to take on one thread, and what to tell of it."""

    graph: Graph
    cycles: float
    misfits: bool
    trace: Trace


def _attempt(
    graph: Graph, machine: Machine, vectors: Machine, threads: int, algorithms: frozenset[str], narrow: bool
) -> _Attempt:
    with trace(is_explaining()) as seen:
        layout = _Layout(graph, machine, threads, spread=True, algorithms=algorithms, narrow=narrow, vectors=vectors)
        after = layout.run()
    found = layout.contractions
    there = set(graph.nodes)
    moved = sum(
        n.outputs[0].tensor.nbytes
        for n in after.nodes
        if n.op.name in ("block", "unblock", "gather") and n not in there and not is_known(n.inputs[0])
    )
    return _Attempt(after, found.cycles + CYCLES_PER_BYTE_MOVED * moved, found.misfits, seen)


def pack_only(graph: Graph, machine: Machine, threads: int, narrow: bool = True) -> Graph:
    """Only what the contraction kernels need: every convolution between conversions of its own, packed weights."""
    return deep(lambda g: _Layout(g, machine, threads, spread=False, narrow=narrow).run())(graph)


class _Layout:
    """One walk over the nodes; `forms` are those of the old graph's values."""

    def __init__(
        self,
        graph: Graph,
        machine: Machine,
        threads: int,
        spread: bool,
        algorithms: frozenset[str] = frozenset(),
        narrow: bool = False,
        vectors: Machine | None = None,
    ) -> None:
        self.graph, self.spread, self.forms = graph, spread, Forms()
        self.contractions = Contractions(graph, self.forms, machine, vectors or machine, threads, algorithms, narrow)

    def run(self) -> Graph:
        plain, blocked = self.forms.plain_forms, self.forms.blocked_forms
        for node in self.graph.nodes:
            if node.op.name in ("conv", "dot") or any(v in blocked for v in node.inputs) or self.picks(node):
                with location(*node.where):
                    self.visit(node)
            else:  # nothing to decide: its operands have plain forms alone
                outs = remake(node, tuple([plain[v] for v in node.inputs]), node.where)
                plain.update(zip(node.outputs, outs, strict=True))
        outputs = tuple([self.forms.plain(v) for v in self.graph.outputs])
        return self.graph if outputs == self.graph.outputs else self.graph.with_outputs(outputs)

    def visit(self, node: Node) -> None:
        if node.op.name in ("conv", "dot"):
            why = self.contractions.place(node)
            if why is None:
                record("layout", node)
                return
            refuse("layout", node, why)
        elif self.spread:
            found = self.on_blocks(node)
            if isinstance(found, Blocked):
                self.forms.blocked_forms[node.outputs[0]] = found
                return
            if isinstance(found, Value):
                self.forms.plain_forms[node.outputs[0]] = found
                return
            chosen = self.picks(node)
            if chosen is not None:  # nothing moves; the plain form is there for whoever needs that
                self.forms.blocked_forms[node.outputs[0]] = chosen
            else:
                refuse("layout", node, found)
        made = remake(node, tuple([self.forms.plain(v) for v in node.inputs]))
        self.forms.plain_forms.update(zip(node.outputs, made, strict=True))

    # -- everything between -------------------------------------------------------------------------------------------

    def on_blocks(self, node: Node) -> Blocked | Value | str:
        """The node's result from blocked operands (plain where it has no channels), or why that cannot be."""
        if node.op.kind is Kind.ELEMENTWISE:
            return self.elementwise(node)
        transfer = TRANSFERS.get(node.op.name)
        if transfer is None:
            return f"{node.op.name} works on the plain form"
        blocked = self.forms.blocked_forms
        first = node.inputs[0] if node.op.name != "concat" else next(v for v in node.inputs if v in blocked)
        form = blocked.get(first)
        if form is None:
            return "its first operand is not blocked"
        if form.shared and node.op.name != "concat":
            return "its lanes hold other channels too"
        if form.mostly_empty and node.op.name != "broadcast_to":
            return "most lanes are empty"
        if node.op.name == "reduce_window" and form.axis in node.attrs["axes"]:
            return self.window_over_channels(node, form)
        return transfer(self.forms, node, form)

    def picks(self, node: Node) -> Blocked | None:
        """The blocked form of some channels, or of channels in another order, of a value that has one."""
        chosen = channels_chosen(node)
        if chosen is None:
            return None
        source, order = chosen
        form = self.forms.form_of(source)
        return picked(form, order) if form is not None and form.axis == 1 and form.value.rank == 5 else None

    def window_over_channels(self, node: Node, form: Blocked) -> Blocked | str:
        """Sums over neighbouring channels, as in local response normalisation.

        Seen as an image with the blocks for rows and all pixels in one line, every block needs the blocks above and
        below: a convolution of one block of channels, with weights that are one inside the window and zero outside.
        """
        a, lanes = node.attrs, form.lanes
        in_order = form.exact and form.groups == 1 and form.places is None
        if a["combine"] != "add" or a["axes"] != (1,) or form.axis != 1 or not in_order:
            return "its window covers channels"
        (size,), (step,), (dilation,), ((low, high),) = a["window"], a["strides"], a["dilation"], a["padding"]
        if (step, dilation, low + high) != (1, 1, size - 1) or max(low, high) > lanes or form.value.rank != 5:
            return "its window covers channels, and not one result for each"
        if lanes != self.contractions.vectors.isa.lanes(form.value.dtype.itemsize):
            return "its lanes are not those of this machine"
        n, blocks, *pixels, _ = form.value.tensor.static_shape
        image = ops.reshape(form.value, shape=(n, 1, blocks, math.prod(pixels), lanes))
        out, row, lane = np.ogrid[:lanes, -1:2, :lanes]
        distance = lanes * row + lane - out
        inside = ((-low <= distance) & (distance <= high)).astype(form.value.dtype.numpy)
        weights = constant(inside.transpose(0, 2, 1)[..., None])  # [filters, channels, rows, 1]
        sums = self.contractions.contract(image, weights, (1, 1), ((1, 1), (0, 0)), (1, 1))
        return replace(form, value=ops.reshape(sums, shape=form.value.shape))

    def elementwise(self, node: Node) -> Blocked | str:
        blocked = self.forms.blocked_forms
        forms = [blocked[v] for v in node.inputs if v in blocked]
        if any(f.shared for f in forms):
            return "its lanes hold other channels too"
        exact = all(f.exact for f in forms)
        if not exact and not node.op.keeps_finite:
            return f"{node.op.name} of lanes past the last channel might not be finite"
        like = next((f for f in forms if f.places is None), forms[0])
        operands = []
        for v in node.inputs:
            form = blocked.get(v)
            value = form.value if form is not None and form.like(like) else self.blocked_broadcast(v, like, exact)
            if isinstance(value, str):
                return value
            operands.append(value)
        return replace(like, value=node.op(*operands, **node.attrs))

    def blocked_broadcast(self, v: Value, like: Blocked, exact: bool) -> Value | str:
        """An operand not blocked yet, for an operation on blocks; of a broadcast only what it repeats is converted."""
        shape = like.value.shape
        number = uniform(v)
        if number is not None:
            if not exact and not np.isfinite(number):
                return "a constant is not finite"
            return ops.broadcast_to(constant(number, v.dtype), shape=shape)
        source = v.node.inputs[0] if v.node.op.name == "broadcast_to" else v
        extents = (1,) * (v.rank - source.rank) + source.shape
        if extents == v.shape:
            if like.places is not None:
                return arranged(self.forms.plain(v), like, like.axis)
            form = self.forms.blocks(v, like.lanes, like.groups, like.axis)
            return form.value if form is not None else "an operand has no blocked form"
        seen = source
        while seen.node.op.name == "reshape" and seen.shape != extents:
            seen = seen.node.inputs[0]  # [C, 1, 1] from a blocked [1, C, 1, 1]
        inner = self.forms.blocked_forms.get(seen) if seen.shape == extents else None
        if inner is not None and inner.like(like):
            return ops.broadcast_to(inner.value, shape=shape)
        small = ops.reshape(self.forms.plain(source), shape=extents)
        if extents[like.axis] == 1:
            return ops.broadcast_to(ops.reshape(small, shape=(*extents, 1)), shape=shape)
        return ops.broadcast_to(arranged(small, like, like.axis), shape=shape)
