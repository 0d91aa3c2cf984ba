"""What is known of a value while importing: its array, or integers with symbolic dimensions among them.

ONNX computes shapes, axes and paddings with ordinary operators, but they decide types, so the importer needs their
values. They are evaluated on demand through the operations' references: constants are known, a shape is known as far as
the type is, and whatever is computed from known values is known. With symbolic dimensions the arrays hold `Dim`
objects, and only integer arithmetic and data movement are followed.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphc.ir.dims import Dim
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind

__all__ = ["Static", "known_array"]


#: more than this is not evaluated: no shape is that long, and a hostile model could ask for any size
_MOST_ELEMENTS = 1 << 24


def known_array(entries: Sequence[Any]) -> np.ndarray:
    """Integers and dimensions as int64, or as objects when one of them is symbolic."""
    if any(isinstance(e, Dim) for e in entries):
        array = np.empty(len(entries), object)
        array[:] = entries
        return array
    return np.array(entries, np.int64)


class Static:
    """Evaluates values of one import. `alias` says that a body's input is an outer value."""

    def __init__(self) -> None:
        self.alias: dict[Value, Value] = {}
        self._known: dict[Value, np.ndarray | None] = {}

    def value(self, wanted: Value) -> np.ndarray | None:
        """The array of `wanted`, or None when it depends on what is not known."""
        literal = wanted.literal
        if literal is not None:
            return literal
        known = self._known
        stack = [wanted]
        while stack:
            v = stack[-1]
            if v in known:
                stack.pop()
                continue
            sources = self._sources(v)
            if any(s in known and known[s] is None for s in sources):
                known[v] = None
            elif unknown := [s for s in sources if s not in known]:
                stack.append(unknown[-1])  # one at a time: the first that is not known spares the others
            else:
                self._evaluate(v)
        return known[wanted]

    def origins(self, wanted: Value) -> list[Node]:
        """The nodes with unknown values that `wanted` is computed from, in no special order."""
        seen: dict[Node, None] = {}
        stack = [wanted]
        while stack:
            v = stack.pop()
            if v.node not in seen and self.value(v) is None:
                seen[v.node] = None
                stack += self._sources(v)
        return list(seen)

    def _sources(self, v: Value) -> tuple[Value, ...]:
        if v in self.alias:
            return (self.alias[v],)
        if v.node.op.name == "shape_of":  # needs the type only
            return ()
        return v.node.inputs

    def _evaluate(self, v: Value) -> None:
        node, known = v.node, self._known
        if v in self.alias:
            known[v] = known[self.alias[v]]
        elif node.op.name == "constant":
            known[v] = v.literal
        elif node.op.name == "input" or node.op.reference is None:
            known[v] = None
        elif node.op.name == "shape_of":
            known[v] = known_array(node.inputs[0].shape)
        else:
            arrays = [known[s] for s in node.inputs]
            results = self._results(node, arrays)
            known.update(zip(node.outputs, results, strict=True))

    @staticmethod
    def _results(node: Node, arrays: Sequence[Any]) -> Sequence[np.ndarray | None]:
        nothing = (None,) * len(node.types)
        symbolic = any(
            isinstance(a, np.ndarray)
            and a.dtype == object
            and isinstance(s.type, TensorType)
            and s.dtype.kind != "string"
            for s, a in zip(node.inputs, arrays, strict=True)
        )
        if symbolic:
            result = _symbolic(node, arrays)
            return nothing if result is None else (result,)
        sizes = [t.size for t in node.types if isinstance(t, TensorType)]
        static = all(isinstance(n, int) for n in sizes) and len(sizes) == len(node.types)
        if node.op.is_control_flow:  # nothing bounds the turns of a stranger's loop
            return nothing
        if not static and node.op.kind is not Kind.HOST:  # an attribute such as a target shape is symbolic
            return nothing
        if any(isinstance(n, int) and n > _MOST_ELEMENTS for n in sizes):
            return nothing
        with np.errstate(all="ignore"):
            out = node.op.reference(*arrays, **node.attrs)  # type: ignore[misc]
        return out if len(node.types) > 1 else (out,)


# References that are right for arrays of dimensions too. Dimensions are not negative, so that "div" may round down.
_ARITHMETIC = {"add", "sub", "mul", "div", "floordiv", "mod", "neg", "maximum", "minimum"}
_MOVEMENT = {"reshape", "transpose", "broadcast_to", "slice", "pad", "gather", "gather_elements", "gather_nd"}


def _symbolic(node: Node, arrays: Sequence[Any]) -> np.ndarray | None:
    """The result when an operand holds symbolic dimensions; None when it cannot be told."""
    name = node.op.name
    out: Any
    if name in _ARITHMETIC or name == "concat":
        out = node.op.reference(*(np.asarray(a, object) for a in arrays), **node.attrs)  # type: ignore[misc]
    elif name in _MOVEMENT:  # the other operands are indices
        out = node.op.reference(np.asarray(arrays[0], object), *arrays[1:], **node.attrs)  # type: ignore[misc]
    elif name == "cast" and node.types[0].dtype.is_integer and node.inputs[0].dtype.is_integer:  # type: ignore[union-attr]
        out = arrays[0]
    elif name in ("reduce_prod", "reduce_sum") and np.ndim(arrays[0]) == 1:
        out = reduce(
            operator.mul if name == "reduce_prod" else operator.add, arrays[0].tolist(), int(name == "reduce_prod")
        )
    else:
        return None
    out = np.asarray(out, object)
    if any(isinstance(e, Dim) for e in out.ravel().tolist()):
        return out
    return out.astype(np.int64)
