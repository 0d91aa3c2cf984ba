"""The end of an anchor's kernel: what is done to each result before it is stored, as data.

An anchor (a contraction, a window) computes a vector of results at a time; the elementwise operations fused behind it
become scalar expressions over that vector, the loop variables

    b, g   batch and group        m   row, or pixel counted through the image
    q      vector of columns      c   the same, counted through all groups

and loads that are affine in them. Everything that depends on sizes is an integer of the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir import scalar as s
from graphc.ir.dtypes import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.kernels.program import Placed
from graphc.ops.fusion import anchor_of
from graphc.ops.spec import Kind, Layout

__all__ = ["Access", "Axes", "Epilogue", "EpilogueStore", "Epilogues", "fused_epilogue"]


#: operations of an epilogue that is written out for every vector of a tile: a hard swish behind a bias has eleven
SHORT = 12


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

    @property
    def operations(self) -> list[Scalar]:
        """The scalar operations, operands first."""
        return s.walk(store.value for store in self.stores)

    @property
    def short(self) -> bool:
        """Whether it is written out for every vector of a tile, so that results are finished in registers."""
        return sum(e.op not in ("const", "temp") for e in self.operations) <= SHORT

    @property
    def integers(self) -> tuple[tuple[int, str], ...]:
        """Which strides the launch gives, in its order: (number of the access, loads first; variable)."""
        accesses = (*self.loads, *(store.access for store in self.stores))
        return tuple((number, variable) for number, access in enumerate(accesses) for variable in access.strides)


@dataclass(frozen=True)
class Epilogues:
    """Several epilogues in one kernel: the launch's first integer behind the template's says which of them it runs.

    They count the same `buffers`; the last ones are those of an epilogue that has fewer. Then follow `integers`, the
    strides that any of them takes.
    """

    choices: tuple[Epilogue, ...]

    @property
    def buffers(self) -> tuple[DType, ...]:
        return self.choices[0].buffers

    @property
    def integers(self) -> tuple[tuple[int, str], ...]:
        return tuple(sorted({name for choice in self.choices for name in choice.integers}))


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


Fused = tuple[Epilogue, list[Placed], list[int]]


def fused_epilogue(
    node: Node, operands: Sequence[Placed], results: Sequence[Placed], axes: Axes, dense: Callable[[Placed], Placed]
) -> Fused | None:
    """The epilogue behind the anchor of `node` (an anchor, or a fusion with one), its operands and its launch integers.

    Operands that the kernel's variables cannot reach where they lie are copied by `dense`, if that makes the difference;
    None when some access cannot be expressed at all.
    """
    found = _fused(node, operands, results, axes)
    apart = [k for k, p in enumerate(operands) if not p.layout.is_dense]
    if found is not None or not apart:
        return found
    near = [replace(p, layout=Layout.dense(p.shape)) for p in operands]
    if _fused(node, near, results, axes) is None:
        return None
    for k in apart:  # each stays where it is, if that will do
        kept = [*near[:k], operands[k], *near[k + 1 :]]
        near = kept if _fused(node, kept, results, axes) is not None else near
    moved = [p if p == n else dense(p) for p, n in zip(operands, near, strict=True)]
    return _fused(node, moved, results, axes)


def _fused(node: Node, operands: Sequence[Placed], results: Sequence[Placed], axes: Axes) -> Fused | None:
    anchor = anchor_of(node)
    assert anchor is not None
    placed: dict[Value, Placed] = {}
    outputs: Sequence[Value] = node.outputs
    nodes: Sequence[Node] = ()
    if anchor is not node:
        body: Graph = node.attrs["body"]
        placed, outputs, nodes = dict(zip(body.inputs, operands, strict=True)), body.outputs, body.nodes
    index = tuple(s.index(a) for a in range(len(axes.shape)))
    elements = _Elements(placed, anchor.outputs[0], nodes)
    try:
        values = [elements.at(v, index) for v in outputs]
    except _InexpressibleError:
        return None
    used = elements.used
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


class _Elements:
    """Elements of a body's values, as expressions of the anchor's result and of loads from what is `placed`."""

    def __init__(self, placed: Mapping[Value, Placed], anchor: Value, nodes: Sequence[Node]) -> None:
        self.used: list[Value] = []  # operands that are loaded, in the order of their numbers
        self._placed, self._anchor = placed, anchor
        self._known: dict[tuple[Value, tuple[Scalar, ...]], Scalar] = {}
        self._behind = {anchor}  # what is computed from the anchor's result
        for node in nodes:
            if not self._behind.isdisjoint(node.inputs):
                self._behind.update(node.outputs)

    def at(self, v: Value, index: tuple[Scalar, ...]) -> Scalar:
        """The element at `index`."""
        if (v, index) not in self._known:
            self._known[v, index] = self._computed(v, index)
        return self._known[v, index]

    def _computed(self, v: Value, index: tuple[Scalar, ...]) -> Scalar:
        if v == self._anchor:
            if any(i.op != "index" or i.attr != axis for axis, i in enumerate(index) if v.shape[axis] != 1):
                raise _InexpressibleError("the anchor's result is read at another element than the one computed")
            return s.temp(0, v.dtype)
        if v in self._placed:
            return self._loaded(v, index)
        node = v.node
        if v.literal is not None and v.literal.size == 1:
            return s.const(v.literal.item(), v.dtype)
        if node.op.kind is Kind.ELEMENTWISE and node.op.scalar is not None:
            inputs: Sequence[Value] = node.inputs
            if node.op.commutative:  # one order, so that x + y and y + x are one kernel
                inputs = sorted(inputs, key=lambda x: x not in self._behind)
            return node.op.scalar(*(self.at(x, index) for x in inputs), **node.attrs)
        if node.op.kind is Kind.INJECTIVE and node.op.compute is not None:
            readers = [_Reader(x.tensor, lambda at, x=x: self.at(x, tuple(at))) for x in node.inputs]
            return node.op.compute(v.tensor, readers, index, **node.attrs)
        raise _InexpressibleError(f"{node.op.name} in an epilogue")

    def _loaded(self, v: Value, index: tuple[Scalar, ...]) -> Scalar:
        if v not in self.used:
            self.used.append(v)
        p = self._placed[v]
        index = tuple(s.const(0) if d == 1 else i for i, d in zip(index, p.shape, strict=True))
        return s.load(self.used.index(v), s.linear(index, p.strides), v.dtype)
