"""What an operation is: one `OpSpec` holds everything the compiler knows about it.

A spec is callable: `add(x, y)` builds a node (see `OpSpec.__call__`). The families of operations stand in the sibling
modules, one a file, and `graphc.ops.REGISTRY` lists them all by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir.dims import DimLike
from graphc.ir.dtypes import DType
from graphc.ir.graph import Node, Value, constant, make
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType

__all__ = [
    "NEST_KINDS",
    "REGISTRY",
    "Batch",
    "Gradient",
    "Kind",
    "Layout",
    "OpSpec",
    "Reader",
    "Sample",
    "expect",
    "has_kernel",
    "names_where",
    "register",
]


class Kind(Enum):
    """How an operation's result elements depend on its operands' elements; fusion asks this first."""

    LEAF = "leaf"  # inputs and constants
    ELEMENTWISE = "elementwise"  # result[i] from operand[i]; all shapes equal
    INJECTIVE = "injective"  # result[i] from operand[f(i)]: views, gathers, pads, concatenations
    REDUCE = "reduce"  # result[i] from many elements of one operand, combined
    ANCHOR = "anchor"  # a tuned kernel template (contraction, pooling, recurrence, sort); others fuse into it
    CONTROL = "control"  # holds body graphs: branches, loops, calls
    FUSION = "fusion"  # operations that became one kernel: a body graph that no pass looks into
    HOST = "host"  # runs on the host through its reference: strings, sequences, data-dependent shapes


class Layout(NamedTuple):
    """Where a tensor's elements lie in a buffer, all counted in elements: `offset + sum(i * stride)`."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @staticmethod
    def dense(shape: Sequence[int], offset: int = 0) -> Layout:
        """Row-major without gaps."""
        strides, step = [], 1
        for d in reversed(shape):
            strides.append(step)
            step *= d
        return Layout(offset, tuple(shape), tuple(reversed(strides)))

    @property
    def is_dense(self) -> bool:
        """Row-major without gaps (strides of dimensions of extent 1 do not matter)."""
        dense = Layout.dense(self.shape)
        return 0 in self.shape or all(
            d == 1 or a == b for d, a, b in zip(self.shape, self.strides, dense.strides, strict=True)
        )


class Sample(NamedTuple):
    """A case from which tests are generated: operand arrays (NumPy's scalars stand for rank 0) and attributes."""

    operands: tuple[Any, ...]
    attrs: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default; nobody mutates it)


#: (node, cotangents of its results, which operands' cotangents are wanted) -> cotangents of its operands
Gradient: TypeAlias = Callable[[Node, tuple[Value | None, ...], tuple[bool, ...]], Sequence[Value | None]]

#: (node, its operands with the batched ones on a new leading axis, which are, that axis's extent) -> results on one
Batch: TypeAlias = Callable[[Node, tuple[Value, ...], tuple[bool, ...], DimLike], Sequence[Value]]


class Reader(Protocol):
    """What `compute` is given for an operand: its static type, and the element at an index (one Scalar a dimension)."""

    @property
    def type(self) -> TensorType: ...

    def __call__(self, *index: Scalar) -> Scalar: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class OpSpec:
    """Everything about one operation.

    infer(*operand types, **attrs)           result type, or a tuple of them; raises GraphTypeError naming the operand
    reference(*arrays, **attrs)              the NumPy oracle: tests, constant folding, the interpreter
    scalar(*Scalars, **attrs)                ELEMENTWISE: one element
    commutative                              ELEMENTWISE, two operands, no attributes: they may change places
    idempotent                               ELEMENTWISE, one operand, no attributes: done twice it is as done once
    keeps_finite                             ELEMENTWISE: finite results of all operands below 200, so that it may work on
                                             the lanes that only fill a block of channels
    nondecreasing                            ELEMENTWISE: of floats, never less when an operand is more, and NaN only of NaN
                                             (or of two infinities)
    compute(result type, readers, index, **attrs)   INJECTIVE: the element at `index` (one Scalar a dimension); each
                                             reader knows its operand's static type, see `Reader`
    view(Layout, result type, **attrs)       INJECTIVE: the layout of the result inside the operand's own buffer, or
                                             None when this layout cannot express it
    looks_up                                 INJECTIVE: the other operands say where the first is read, so that must lie in
                                             memory
    apart                                    INJECTIVE: never part of a loop nest, for the plan of memory makes it free by
                                             having its operands computed where they belong; or it only says when
    combine                                  REDUCE: "add", "mul", "maximum", "minimum", "and", "or" over the axes in
                                             the attribute `axes`
    template                                 ANCHOR: the name of the kernel template in graphc.kernels
    takes_epilogue                           ANCHOR: its template can do elementwise operations on what it stores, so they
                                             are fused behind it
    writes_strided                           ANCHOR: its template can store its results in any layout (a slice of a
                                             concatenation, say), not only densely
    dense_images                             ANCHOR: its kernel copies the first operand, a batch of images, unless each
                                             image lies densely
    decompose(node)                          values of smaller operations that compute the same
    body_types(operand types, **attrs)       CONTROL, FUSION: the input types of each body, in the order of `Node.bodies`
    gradient(node, cotangents, wanted)       the cotangents of the operands, as graph, from those of the results (None:
                                             zero); None for an operand that is not `wanted` or that has none. See
                                             `graphc.ops.gradient`. Without it, `no_gradient` says why there is none
    batch(node, operands, batched, size)     the results for `size` cases at once, see `graphc.ops.batching`; without it
                                             the cases are taken one after the other
    made_by_passes                           only passes make it: a graph that somebody wrote or imported has none
    packs                                    puts weights in the order in which a kernel reads them: of constants that is
                                             done ahead, whatever it takes and even when they are one number repeated
    promote                                  called with Python numbers or shapes that differ, operands are broadcast
    samples()                                cases for the generated tests
    """

    name: str
    kind: Kind
    infer: Callable[..., Any]
    summary: str = ""
    reference: Callable[..., Any] | None = None
    scalar: Callable[..., Scalar] | None = None
    commutative: bool = False
    idempotent: bool = False
    keeps_finite: bool = False
    nondecreasing: bool = False
    compute: Callable[..., Scalar] | None = None
    view: Callable[..., Layout | None] | None = None
    looks_up: bool = False
    apart: bool = False
    combine: str | None = None
    template: str | None = None
    takes_epilogue: bool = False
    writes_strided: bool = False
    dense_images: bool = False
    decompose: Callable[..., tuple[Value, ...]] | None = None
    body_types: Callable[..., Sequence[tuple[Any, ...]]] | None = None
    gradient: Gradient | None = None
    no_gradient: str = ""
    batch: Batch | None = None
    made_by_passes: bool = False
    packs: bool = False
    promote: bool = False
    samples: Callable[[], Iterable[Sample]] = field(default=lambda: ())

    def __call__(self, *operands: Value | np.ndarray | float, **attrs: Any) -> Any:
        """Build a node: its value, or a tuple of them when the operation has several results.

        Arrays become constants. With `promote`, Python numbers take the other operands' element type and shapes are
        broadcast as NumPy does; element types must agree.
        """
        values: Sequence[Value] = (
            operands if all(type(o) is Value for o in operands) else self._as_values(operands)  # type: ignore[assignment]
        )
        if self.promote and len(values) > 1:
            first = values[0].shape
            if any(v.shape != first for v in values):
                from graphc.ops.injective import broadcast_shapes, broadcast_to

                shape = broadcast_shapes(*(v.shape for v in values), what=self.name)
                values = [v if v.shape == shape else broadcast_to(v, shape=shape) for v in values]
        outs = make(self, *values, **attrs)
        return outs[0] if len(outs) == 1 else outs

    def _as_values(self, operands: Sequence[Value | np.ndarray | float]) -> list[Value]:
        """The operands with arrays and numbers as constants."""
        # the last value decides, for in select(condition, a, 0.0) the first one is a bool
        like = next(
            (o.dtype for o in reversed(operands) if isinstance(o, Value) and isinstance(o.type, TensorType)), None
        )
        return [
            o
            if isinstance(o, Value)
            else constant(o, like if isinstance(o, bool | int | float) and self.promote else None)
            for o in operands
        ]

    @property
    def is_control_flow(self) -> bool:
        """Whether the bodies are graphs in their own right, for passes to work on."""
        return self.kind is Kind.CONTROL

    def __repr__(self) -> str:
        return f"<op {self.name}>"


#: the kinds of what can become part of a loop nest
NEST_KINDS = (Kind.ELEMENTWISE, Kind.INJECTIVE, Kind.REDUCE)

#: every operation by name
REGISTRY: dict[str, OpSpec] = {}


def register(spec: OpSpec) -> OpSpec:
    """Enter a spec; a name can be taken once."""
    if spec.name in REGISTRY:
        raise ValueError(f"operation {spec.name!r} is registered twice")
    REGISTRY[spec.name] = spec
    return spec


def names_where(holds: Callable[[OpSpec], bool]) -> tuple[str, ...]:
    """The names of the operations of which something holds: the roots of a rule for all of them.

    To be asked once all are registered, which `from graphc import ops` sees to."""
    return tuple(name for name, spec in REGISTRY.items() if holds(spec))


def has_kernel(dtype: DType) -> bool:
    """Whether generated kernels compute with this element type; an operation on any other runs as its reference."""
    return dtype.kind == "bool" or (dtype.is_integer and dtype.bits >= 8) or (dtype.is_float and dtype.bits >= 16)


def expect(condition: bool, message: str) -> None:
    """Raise GraphTypeError unless the condition holds; for `infer` functions."""
    if not condition:
        raise GraphTypeError(message)
