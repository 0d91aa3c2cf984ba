"""The end of an anchor's kernel: what is done to each result before it is stored, as data.

An anchor (a contraction, a window) computes a vector of results at a time; the elementwise operations fused behind it
become scalar expressions over that vector, the loop variables

    b, g   batch and group        m   row, or pixel counted through the image
    q      vector of columns      c   the same, counted through all groups

and loads that are affine in them. Everything that depends on sizes is an integer of the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphc.ir import scalar as s
from graphc.ir.dtypes import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.kernels.program import Placed
from graphc.ops.fusion import anchor_of
from graphc.ops.spec import Kind

__all__ = ["Access", "Axes", "Epilogue", "EpilogueStore", "fused_epilogue"]


class _InexpressibleError(Exception):
    """Why an operation cannot be part of an epilogue; the anchor then gets a kernel of its own."""


@dataclass(frozen=True)
class Access:
    """Where a vector of results finds its element or elements in operand `buffer`.

    `strides` names the variables that move it; the launch gives the stride of each, in elements, in this order.
    `vector` says whether the lanes read consecutive elements, or all the same one.
    """

    buffer: int
    strides: tuple[str, ...]
    vector: bool


@dataclass(frozen=True)
class EpilogueStore:
    """`operand[access] = value`; in the value, `temp(0)` is the result and `load(k)` reads access `k`."""

    access: Access
    value: Scalar


@dataclass(frozen=True)
class Epilogue:
    """`buffers` gives the element types of the epilogue's operands, `outputs` of them at the end are written."""

    buffers: tuple[DType, ...]
    outputs: int
    loads: tuple[Access, ...]
    stores: tuple[EpilogueStore, ...]


@dataclass(frozen=True)
class Axes:
    """How the axes of an anchor's result map to the kernel's variables.

    `groups[v]` lists the axes that variable `v` counts through, outermost first; `column` is the axis whose elements
    are the lanes, with `lanes` of them to a vector (`q` and `c` then advance by whole vectors).
    """

    shape: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]]
    column: int
    column_vectors: str | None  # the variable that counts vectors along the column axis, if they are that axis
    lanes: int

    @classmethod
    def of_blocked_image(cls, shape: tuple[int, ...], lanes: int) -> Axes:
        """Of a result `[images, blocks of channels, height, width, lanes]`: rows are pixels."""
        return cls(shape, {"b": (0,), "c": (1,), "m": (2, 3)}, column=4, column_vectors=None, lanes=lanes)

    def strides(self, coefficients: Mapping[int, int]) -> tuple[dict[str, int], bool] | None:
        """An affine access as (stride of each variable, lanes are consecutive); None when they cannot express it."""
        along = coefficients.get(self.column, 0)
        if along not in (0, 1):
            return None
        result: dict[str, int] = {}
        for variable, axes in self.groups.items():
            axes = tuple(a for a in axes if self.shape[a] > 1)
            if not axes:
                continue
            steps = [coefficients.get(a, 0) for a in axes]
            for outer, inner, axis in zip(steps, steps[1:], axes[1:], strict=False):
                if outer != inner * self.shape[axis]:
                    return None
            if steps[-1]:
                result[variable] = steps[-1]
        if self.column_vectors is not None and along and self.shape[self.column] > self.lanes:
            result[self.column_vectors] = self.lanes
        return result, bool(along)


def fused_epilogue(
    node: Node, operands: Sequence[Placed], results: Sequence[Placed], axes: Axes
) -> tuple[Epilogue, list[Placed], list[int]] | None:
    """The epilogue behind the anchor of `node` (an anchor, or a fusion with one), its operands and its launch integers.

    None when some access cannot be expressed by the kernel's variables.
    """
    anchor = anchor_of(node)
    assert anchor is not None
    placed: dict[Value, Placed] = {}
    outputs: Sequence[Value] = node.outputs
    if anchor is not node:
        body: Graph = node.attrs["body"]
        placed, outputs = dict(zip(body.inputs, operands, strict=True)), body.outputs
    result_value = anchor.outputs[0]
    index = tuple(s.index(a) for a in range(len(axes.shape)))
    used: list[Value] = []
    try:
        known: dict[tuple[Value, tuple[Scalar, ...]], Scalar] = {}
        values = [_element(v, index, placed, result_value, used, known) for v in outputs]
    except _InexpressibleError:
        return None
    where: list[Placed] = [placed[v] for v in used] + list(results)
    accesses: dict[Scalar, int] = {}
    loads: list[Access] = []
    integers: list[int] = []

    def access(buffer: int, offset: Scalar) -> Access | None:
        form = s.affine(offset)
        strides = axes.strides(form[1]) if form is not None and form[0] == 0 else None
        if strides is None:
            return None
        integers.extend(strides[0].values())
        return Access(buffer, tuple(strides[0]), strides[1])

    for value in values:
        for e in s.walk((value,)):
            if e.op == "load" and e not in accesses:
                found = access(e.attr, e.args[0])
                if found is None or not (found.vector or e.dtype.bits >= 32):  # halves are read as vectors alone
                    return None
                accesses[e] = len(loads)
                loads.append(found)
    stores = []
    for k, (value, result) in enumerate(zip(values, results, strict=True)):
        offset = s.linear(index, result.strides)
        target = access(len(used) + k, offset)
        if target is None or not target.vector:
            return None
        value = _renumber(value, accesses)
        if any(not _in_vectors(e) for e in s.walk((value,))):
            return None
        stores.append(EpilogueStore(target, value))
    buffers = tuple(p.dtype for p in where)
    return Epilogue(buffers, len(results), tuple(loads), tuple(stores)), where, integers


def _renumber(value: Scalar, accesses: Mapping[Scalar, int]) -> Scalar:
    """Loads name their access and no longer an offset."""
    new: dict[Scalar, Scalar] = {}
    for e in s.walk((value,)):
        if e in accesses:
            new[e] = s.load(accesses[e], 0, e.dtype)
        else:
            new[e] = e.with_args(tuple(new[a] for a in e.args))
    return new[value]


def _in_vectors(e: Scalar) -> bool:
    """Whether kernels compute this on a vector of results: one width of element in registers, no loop counters."""
    if e.op in ("index", "param", "bitcast"):
        return False
    if e.op == "cast":  # in registers bfloat16 is float32
        return {e.dtype.name, e.args[0].dtype.name} <= {"float32", "bfloat16"}
    if e.op == "const" and e.dtype.name == "int64":  # the offset of a load
        return True
    return e.dtype.name in ("float32", "float64", "bfloat16") or (e.dtype.kind == "bool" and e.op != "load")


class _Reader:
    """An operand of an operation in the body, as `OpSpec.compute` reads it."""

    def __init__(self, operand: TensorType, read: Callable[..., Scalar]) -> None:
        self.type, self._read = operand, read

    def __call__(self, *index: Scalar) -> Scalar:
        return self._read(index)


def _element(
    v: Value,
    index: tuple[Scalar, ...],
    placed: Mapping[Value, Placed],
    anchor: Value,
    used: list[Value],
    known: dict[tuple[Value, tuple[Scalar, ...]], Scalar],
) -> Scalar:
    """The element of a body value at `index`, in terms of the anchor's result and loads; `known` is a memo."""
    if (v, index) not in known:
        known[v, index] = _computed(v, index, placed, anchor, used, known)
    return known[v, index]


def _computed(
    v: Value,
    index: tuple[Scalar, ...],
    placed: Mapping[Value, Placed],
    anchor: Value,
    used: list[Value],
    known: dict[tuple[Value, tuple[Scalar, ...]], Scalar],
) -> Scalar:
    if v == anchor:
        if any(i.op != "index" or i.attr != axis for axis, i in enumerate(index) if v.shape[axis] != 1):
            raise _InexpressibleError("the anchor's result is read at another element than the one computed")
        return s.temp(0, v.dtype)
    if v in placed:
        if v not in used:
            used.append(v)
        p = placed[v]
        index = tuple(s.const(0) if d == 1 else i for i, d in zip(index, p.shape, strict=True))
        return s.load(used.index(v), s.linear(index, p.strides), v.dtype)
    node = v.node
    if v.literal is not None and v.literal.size == 1:
        return s.const(v.literal.item(), v.dtype)
    if node.op.kind is Kind.ELEMENTWISE and node.op.scalar is not None:
        return node.op.scalar(*(_element(x, index, placed, anchor, used, known) for x in node.inputs), **node.attrs)
    if node.op.kind is Kind.INJECTIVE and node.op.compute is not None:
        readers = [
            _Reader(x.tensor, lambda at, x=x: _element(x, tuple(at), placed, anchor, used, known)) for x in node.inputs
        ]
        return node.op.compute(v.tensor, readers, index, **node.attrs)
    raise _InexpressibleError(f"{node.op.name} in an epilogue")
