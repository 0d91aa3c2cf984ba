"""Constant folding: what does not depend on the inputs is computed now, by the operations' NumPy references.

Known arrays are kept as NumPy views, so a broadcast or a transpose of a constant costs nothing while it is only an
operand of further folding. An elementwise operation is computed once along axes on which all its operands repeat.
What reaches a node that cannot fold becomes a constant, under a broadcast when it repeats.

The budget: a result may not be much larger than the data it comes from (`GROWTH`), unless it is small anyway or is
weights packed for a kernel. A large broadcast is cheaper to describe than to store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import ModelError, PassError
from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, constant, describe_location, inline, location, remake
from graphc.ir.manager import once_settled
from graphc.ir.trace import record, refuse
from graphc.ir.types import TensorType
from graphc.ops.spec import REGISTRY, Kind

__all__ = ["fold", "folded"]

#: a folded result may have this many times the bytes of what it was computed from ...
GROWTH = 4
#: ... and this many bytes in any case
SMALL_BYTES = 1 << 20
#: references of kernel templates are slow: fold them for at most this many operand elements
ANCHOR_ELEMENTS = 1 << 16


def fold(graph: Graph) -> Graph:
    """The graph with constants computed and control flow with a known condition resolved."""
    return once_settled("fold", deep(lambda g: _Folder(g).run()), graph)


def folded(node: Node) -> Sequence[Value] | None:
    """The results of one node whose operands are constants, or repeat one; None when they are not computed now.

    For `rewrite(evaluate=...)`: what rules make of constants is folded while they still work.
    """
    if node.op.kind in (Kind.LEAF, Kind.CONTROL, Kind.FUSION):
        return None
    if node.op.name == "broadcast_to":
        data = node.inputs[0].literal
        if data is None or data.size != node.outputs[0].tensor.size:
            return None  # it repeats a constant, which is cheaper to describe than to store
    folder = _Folder(Graph((), node.outputs))
    for v in node.inputs:
        source = v if v.literal is not None else v.node.inputs[0] if v.node.op.name == "broadcast_to" else None
        if source is None or source.literal is None:
            return None
        folder.known[v] = source.literal if source is v else np.broadcast_to(source.literal, v.shape)
        folder.names[v] = source.node.attrs["data"].name
    folder.visit(node, node.inputs)
    results = [folder.emit(v) for v in node.outputs]
    return None if results[0].node is node else results


class _Folder:
    """One sweep. `known` holds arrays by value, `new` what replaces each value of the old graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[Value, np.ndarray] = {}
        self.names: dict[Value, str] = {}
        self.new: dict[Value, Value] = {}
        self.emitted: dict[Value, Value] = {}

    def run(self) -> Graph:
        new, known = self.new, self.known
        for node in self.graph.nodes:
            if node.op.name == "constant":
                self.know(node)
                continue
            if node.inputs and not node.op.is_control_flow:
                for v in node.inputs:
                    if v.node.level < 0 or v in new:  # it may be known, or was replaced
                        break
                else:
                    continue
            inputs = tuple([new.get(v, v) for v in node.inputs])
            if node.op.is_control_flow or not inputs or any(map(known.__contains__, inputs)):
                with location(*node.where):
                    outs = self.visit(node, inputs)
            else:
                outs = remake(node, inputs, node.where)
            if outs[0].node is not node:
                new.update(zip(node.outputs, outs, strict=True))
        outputs = tuple([self.emit(new.get(v, v)) for v in self.graph.outputs])
        return self.graph if outputs == self.graph.outputs else self.graph.with_outputs(outputs)

    def know(self, constant: Node) -> None:
        (v,), data = constant.outputs, constant.attrs["data"]
        self.known[v], self.names[v] = data.array, data.name

    def visit(self, old: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        """The node on its new inputs: known, or fed with the constants that its operands became."""
        node = remake(old, inputs)[0].node
        resolved = self.resolve(node, inputs)
        if resolved is not None:
            record("fold", node)
            return resolved
        if all(v in self.known for v in inputs) and node.op.kind is not Kind.LEAF:
            why = self.why_not(node)
            if why is None:
                self.evaluate(node)
                return node.outputs
            refuse("fold", node, why)
        return remake(node, tuple(self.emit(v) for v in inputs))

    def why_not(self, node: Node) -> str | None:
        """Why a node with known operands is not computed now."""
        if node.op.reference is None:
            return "it has no reference"
        if node.op.is_control_flow:
            return "it is control flow"
        if node.op.kind is Kind.FUSION:
            return "it is a kernel already"
        if not all(isinstance(t, TensorType) and t.is_static for t in node.types):
            return "its result is not a tensor of known shape"
        if node.op.packs or node.op.name == "broadcast_to":
            return None
        elements = sum(self.known[v].size for v in node.inputs)
        if node.op.kind is Kind.ANCHOR and elements > ANCHOR_ELEMENTS:
            return f"its reference would be slow on {elements} elements"
        source = sum(_distinct(self.known[v]).nbytes for v in node.inputs)
        result = sum(t.nbytes for t in node.types if isinstance(t, TensorType))
        if node.op.kind is Kind.ELEMENTWISE:
            repeats = _repeating([self.known[v] for v in node.inputs])
            result //= math.prod(self.known[node.inputs[0]].shape[a] for a in repeats) or 1
        if result > max(SMALL_BYTES, GROWTH * source):
            return f"its result of {result} bytes is much larger than its operands' {source}"
        return None

    def evaluate(self, node: Node) -> None:
        arrays = [self.known[v] for v in node.inputs]
        assert node.op.reference is not None
        shape = arrays[0].shape if arrays else ()
        repeats = _repeating(arrays) if node.op.kind is Kind.ELEMENTWISE else ()
        try:
            with np.errstate(all="ignore"):
                result = node.op.reference(*(_once(a, repeats) for a in arrays), **node.attrs)
        except IndexError as e:  # a constant index that leaves its axis
            raise ModelError(f"{e}{describe_location(node)}") from None
        results = result if isinstance(result, tuple) else (result,)
        for v, array in zip(node.outputs, results, strict=True):
            array = np.asarray(array)
            if repeats:
                array = np.broadcast_to(array, shape)
            if array.dtype != v.dtype.numpy or array.shape != v.shape:
                raise PassError(
                    f"the reference of {node.op.name} gives {array.dtype}{list(array.shape)}, inference says {v.type}"
                    + describe_location(node)
                )
            self.known[v] = array
            self.names[v] = next((self.names[i] for i in node.inputs if self.names.get(i)), "")
        record("fold", node)

    def emit(self, v: Value) -> Value:
        """A value for readers that do not fold: a constant, under a broadcast when it repeats."""
        if v not in self.known or v.node.op.name == "constant":
            return v
        if v not in self.emitted:
            array = self.known[v]
            base = _distinct(array)
            already = v.node.op.name == "broadcast_to" and v.node.inputs[0].literal is not None
            with location(*v.node.where):
                if already and base.size < array.size:
                    self.emitted[v] = v
                elif base.size < array.size:
                    leading = next((a for a, d in enumerate(base.shape) if d != 1), base.ndim)
                    data = constant(np.asarray(base, order="C").reshape(base.shape[leading:]), v.dtype, self.names[v])
                    self.emitted[v] = REGISTRY["broadcast_to"](data, shape=v.shape)
                else:
                    self.emitted[v] = constant(np.asarray(array, order="C"), v.dtype, self.names[v])
        return self.emitted[v]

    def resolve(self, node: Node, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        """Control flow whose course is known: the branch that will be taken, or a loop that makes no step."""
        if node.op.name == "if_" and inputs[0] in self.known:
            taken = node.attrs["then_body" if self.known[inputs[0]].item() else "else_body"]
            return inline(taken, [self.emit(v) for v in inputs[1:]])
        if node.op.name == "loop":
            trips, condition, carries = self.known.get(inputs[0]), self.known.get(inputs[1]), node.attrs["carries"]
            never = (trips is not None and trips.item() <= 0) or (condition is not None and not condition.item())
            scans = node.types[carries:]
            if never and all(isinstance(t, TensorType) and all(isinstance(d, int) for d in t.shape[1:]) for t in scans):
                empty = [constant(np.zeros((0, *t.shape[1:]), t.dtype.numpy), t.dtype) for t in scans]  # type: ignore[union-attr]
                if all(e.type == t for e, t in zip(empty, scans, strict=True)):
                    return (*(self.emit(v) for v in inputs[2 : 2 + carries]), *empty)
        return None


def _repeating(arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Axes along which every one of these arrays (of one shape) repeats its elements."""
    if not arrays:
        return ()
    return tuple(a for a, d in enumerate(arrays[0].shape) if d > 1 and all(x.strides[a] == 0 for x in arrays))


def _once(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The array with only the first entry of these axes."""
    return array[tuple(slice(1) if a in axes else slice(None) for a in range(array.ndim))] if axes else array


def _distinct(array: np.ndarray) -> np.ndarray:
    """The array without its repetitions."""
    return _once(array, _repeating([array]))
