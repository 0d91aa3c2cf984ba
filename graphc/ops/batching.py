"""How an operation is done for many cases at once: rules that put the cases on a new leading axis.

A rule is given the node, its operands, which of them are *batched* (have the cases on a new leading axis; the others
are the same in every case) and the number of cases; it gives the results, all batched. It computes for every case what
the node computes for one. Elementwise operations and reductions need no rule (`graphc.autodiff.batching` knows theirs
from their kind); most others need one of those here:

    transpose = register(OpSpec(..., batch=leading(lambda *, perm: {"perm": (0, *(p + 1 for p in perm))})))

An operation without a rule is still right, but its cases are taken one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.ir.dims import DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, describe_location, input_value, make, remake
from graphc.ir.types import TensorType, type_symbols
from graphc.ops.spec import Batch

__all__ = ["case_by_case", "case_numbers", "lead", "leading", "move_axis", "next_axis", "with_case"]


def lead(x: Value, size: DimLike, batched: bool = False) -> Value:
    """An operand with the cases on a leading axis: one that is not batched is repeated, as a view."""
    return x if batched else ops.broadcast_to(x, shape=(size, *x.shape))


def leading(attributes: Callable[..., dict[str, Any]] | None = None, *, takes_size: bool = False) -> Batch:
    """The rule of an operation that can be told to leave a leading axis of all its operands alone.

    `attributes(**attrs)` gives the attributes that change when an axis is put in front; with `takes_size` it also takes
    the number of cases, as `size`.
    """

    def rule(node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike) -> Sequence[Value]:
        every = [lead(x, size, b) for x, b in zip(operands, batched, strict=True)]
        extra = {"size": size} if takes_size else {}
        changed = attributes(**node.attrs, **extra) if attributes is not None else {}
        return make(node.op, *every, **{**node.attrs, **changed})

    return rule


#: the rule of an operation that works along its attribute `axis`
next_axis = leading(lambda *, axis, **_: {"axis": axis + 1})


def move_axis(x: Value, source: int, target: int) -> Value:
    """`x` with the axis `source` at the place `target`; the others keep their order."""
    order = [k for k in range(x.rank) if k != source]
    order.insert(target, source)
    return x if source == target else ops.transpose(x, perm=tuple(order))


def case_by_case(node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike) -> Sequence[Value]:
    """The rule that fits every operation with tensors for results: a scan over the cases.

    Raises GraphTypeError where a result is no tensor, or its size depends on data and so differs from case to case.
    """
    known = frozenset[str]().union(*(type_symbols(v.type) for v in node.inputs))
    for t in node.types:
        if not isinstance(t, TensorType):
            raise GraphTypeError(
                f"{node.op.name} gives {t} under vmap, which batches tensors alone{describe_location(node)}"
            )
        if not type_symbols(t) <= known:
            raise GraphTypeError(
                f"{node.op.name} gives {t}, whose size depends on the data, so the cases of vmap would differ in "
                f"it{describe_location(node)}; compute with a mask of fixed size instead"
            )
    rows = [k for k, b in enumerate(batched) if b]
    held = [k for k, b in enumerate(batched) if not b]
    inputs = {k: input_value(f"x{k}", node.inputs[k].type) for k in (*rows, *held)}
    body = Graph(inputs.values(), remake(node, tuple(inputs[k] for k in range(len(operands)))))
    return make(ops.REGISTRY["scan"], *(operands[k] for k in (*rows, *held)), body=body, carries=0, scanned=len(rows))


# ------------------------------------------------------------------------------ what the rules of several entries need


def case_numbers(shape: Sequence[DimLike]) -> Value:
    """int64 of a shape: each element's index along the first axis, the number of its case."""
    return ops.iota(shape=tuple(shape), axis=0, dtype=dtype_of("int64"))


def with_case(indices: Value) -> Value:
    """Coordinates (the last axis of batched indices) with the number of the case before them."""
    wide = indices if indices.dtype.name == "int64" else ops.cast(indices, dtype=dtype_of("int64"))
    return ops.concat(case_numbers((*indices.shape[:-1], 1)), wide, axis=indices.rank - 1)
