"""Graph to loop nests: elementwise, injective and reducing operations, alone or fused, as kernels and their launches.

A value of the graph is a function from an index to a scalar expression; lowering asks the results for theirs and so
substitutes producers into consumers, however many there are. A reduction becomes a stage with loops over its own
axes inside the loops over the axes that it keeps; what uses it at the same outer point, along the reduced axes again
or not, becomes a later stage. A softmax is one nest of three stages.

`why_not` tells the fusion pass whether a body can become one nest, and if not, why.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from graphc.errors import CompileError
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Node, Value, describe_location, input_value, make
from graphc.ir.scalar import Scalar, const, index, linear, load, rewrite, scalar, temp, walk
from graphc.ir.types import TensorType
from graphc.kernels import loops
from graphc.kernels.index import ranges, simplify
from graphc.kernels.ir import Launch, LoopNest, Map, Operand, Reduce, Store
from graphc.kernels.program import Placed
from graphc.kernels.rounding import settle_extrema
from graphc.ops.spec import Kind, Layout

__all__ = ["launches", "lower", "lower_copy", "nest_of", "why_not"]

_KERNEL_TYPES = {
    "bool", "int2", "int4", "int8", "int16", "int32", "int64", "uint2", "uint4", "uint8", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64",
}  # fmt: skip
#: scalar operations that a task should at least do: well above the cost of waking a thread
_TASK_WORK = 30_000
_COSTLY = {
    "exp": 12, "exp2": 10, "expm1": 20, "log": 12, "log2": 12, "log1p": 20, "sin": 20, "cos": 20, "tan": 30, "asin": 20, "acos": 20,
    "atan": 20, "sinh": 25, "cosh": 25, "tanh": 15, "asinh": 30, "acosh": 30, "atanh": 30, "sigmoid": 15, "erf": 20, "pow": 40,
    "atan2": 30, "div": 4, "floordiv": 8, "mod": 8, "fmod": 20, "sqrt": 6, "rsqrt": 8, "reciprocal": 4,
}  # fmt: skip

#: worth a store and a load not to do twice
_TRANSCENDENTAL = frozenset(op for op, cost in _COSTLY.items() if cost >= 10)


class _CannotLowerError(Exception):
    """Why a body does not become a loop nest."""


# -- graph to nest --------------------------------------------------------------------------------------------------


class _Reader:
    """An operand, for `OpSpec.compute`: called with indices it gives the element there."""

    def __init__(self, body: _Body, value: Value) -> None:
        self._body, self._value = body, value
        self.type: TensorType = value.tensor

    def __call__(self, *indices: Scalar) -> Scalar:
        body = self._body
        return body.element(self._value, tuple(simplify(i, body.extents, body.simplified) for i in indices))


class _Body:
    """The values of a fusion's body as functions of indices, for one set of loops."""

    def __init__(self, graph: Graph, strides: Sequence[Sequence[int]], extents: Sequence[int]) -> None:
        self.inputs = {v: (k, s) for k, (v, s) in enumerate(zip(graph.inputs, strides, strict=True))}
        self.extents = extents
        self.simplified: dict[Scalar, Scalar] = {}
        self.safe: set[Scalar] = set()  # loads inside their operand wherever they are made
        self.reductions: dict[Node, tuple[int, tuple[Scalar, ...]]] = {}  # temp, and the index at which it may be read
        self._known: dict[tuple[Value, tuple[Scalar, ...]], Scalar] = {}

    def element(self, value: Value, indices: tuple[Scalar, ...]) -> Scalar:
        """The expression of one element. Chains of elementwise operations are walked, not recursed into."""
        known, pending = self._known, [value]
        while pending:
            v = pending[-1]
            if (v, indices) not in known:
                if v.node.op.kind is Kind.ELEMENTWISE:
                    missing = [u for u in v.node.inputs if (u, indices) not in known]
                    if missing:
                        pending += missing
                        continue
                known[v, indices] = self._chosen(simplify(self._compute(v, indices), self.extents, self.simplified))
            pending.pop()
        return known[value, indices]

    def _chosen(self, e: Scalar) -> Scalar:
        """Choices whose sides load nothing that may lie outside need no branch."""
        if e.op != "select" or not all(x in self.safe for x in walk(e.args[1:]) if x.op == "load"):
            return e
        return scalar("choose", *e.args)

    def _compute(self, value: Value, indices: tuple[Scalar, ...]) -> Scalar:
        node, spec = value.node, value.node.op
        if value in self.inputs:
            number, strides = self.inputs[value]
            element = load(number, simplify(linear(indices, strides), self.extents, self.simplified), value.dtype)
            within = [ranges(i, tuple(self.extents)) for i in indices]
            if all(r is not None and r.low >= 0 and r.high < d for r, d in zip(within, value.shape, strict=True)):
                self.safe.add(element)
            return element
        if spec.name == "constant":
            return _constant(value)
        if spec.kind is Kind.ELEMENTWISE and spec.scalar is not None:
            return spec.scalar(*(self._known[v, indices] for v in node.inputs), **node.attrs)
        if spec.kind is Kind.INJECTIVE and spec.compute is not None:
            return spec.compute(value.tensor, tuple(_Reader(self, v) for v in node.inputs), indices, **node.attrs)
        if node in self.reductions:
            number, where = self.reductions[node]
            if indices != where:
                raise _CannotLowerError(f"{spec.name} is read at another point than its own")
            return temp(number, value.dtype)
        raise _CannotLowerError(f"{spec.name} does not become part of a loop nest")


def _constant(value: Value) -> Scalar:
    array = value.literal
    assert array is not None
    if array.size == 0 or (array.size > 1 and (array != array.flat[0]).any()):
        raise _CannotLowerError(f"a constant of {array.size} elements must be an operand")
    if value.dtype.kind not in ("float", "int", "uint", "bool"):
        raise _CannotLowerError(f"kernels do not compute {value.dtype}")
    return const(array.flat[0].item(), value.dtype)


def _indices(shape: Sequence[int], counters: Sequence[tuple[int, Scalar]]) -> tuple[Scalar, ...] | None:
    """Indices into a tensor whose extents, those of 1 apart, are the loops' extents in order; None when they are not."""
    rest = [(d, i) for d, i in counters if d != 1]
    result = []
    for d in shape:
        if d == 1:
            result.append(const(0))
        elif rest and rest[0][0] == d:
            result.append(rest.pop(0)[1])
        else:
            return None
    return None if rest else tuple(result)


def nest_of(body: Graph, operands: Sequence[Layout], results: Sequence[Layout]) -> LoopNest:
    """The loop nest that computes `body`, with numbers for extents and strides; buffer k is operand or result k.

    Offsets count from the operand's first element; a layout's own offset is left to the launch.
    Raises CompileError with the reason when there is none.
    """
    try:
        return _nest(body, tuple(map(_strides, operands)), tuple(map(_strides, results)))
    except _CannotLowerError as reason:
        where = describe_location(body.outputs[0].node)
        raise CompileError(f"{body.outputs[0].node.op.name}: no kernel, {reason}{where}") from None


def _strides(layout: Layout) -> tuple[int, ...]:
    """A layout's strides; in an empty one they mean nothing, but must not make loads look constant, or those are made."""
    return (1,) * len(layout.shape) if 0 in layout.shape else layout.strides


@lru_cache(maxsize=1024)
def _nest(body: Graph, operands: tuple[tuple[int, ...], ...], results: tuple[tuple[int, ...], ...]) -> LoopNest:
    for v in (*body.inputs, *body.outputs):
        if not isinstance(v.type, TensorType) or not v.type.is_static:
            raise _CannotLowerError(f"{v.type} has no fixed size")
        if v.dtype.name not in _KERNEL_TYPES:
            raise _CannotLowerError(f"kernels do not compute {v.dtype}")
    reductions = [n for n in body.nodes if n.op.kind is Kind.REDUCE]
    shape: Sequence[int] = body.outputs[0].tensor.static_shape
    axes: Sequence[int] = ()
    if reductions:
        shape, axes = reductions[0].inputs[0].tensor.static_shape, reductions[0].attrs["axes"]
    kept = [k for k in range(len(shape)) if k not in axes]
    counters = {axis: index(k) for k, axis in enumerate([*kept, *axes])}
    full = [(d, counters[k]) for k, d in enumerate(shape)]
    outer = [(shape[k], counters[k]) for k in kept]
    extents = [shape[k] for k in (*kept, *axes)]
    inner = tuple(const(shape[k]) for k in axes)

    values = _Body(body, operands, extents)
    stages: list[Map | Reduce] = []
    for number, node in enumerate(reductions):
        (operand,) = node.inputs
        assert node.op.combine is not None
        where = _indices(operand.tensor.static_shape, full)
        summed = {counters[k] for k in axes}
        if where is None or any(
            (i in summed) != (k in node.attrs["axes"]) for k, i in enumerate(where) if i.op == "index"
        ):
            raise _CannotLowerError(f"{node.op.name} runs over other axes than {reductions[0].op.name}")
        stages.append(Reduce(number, node.op.combine, inner, values.element(operand, where)))
        values.reductions[node] = number, tuple(i for k, i in enumerate(where) if k not in node.attrs["axes"])

    inside: list[Store] = []
    outside: list[Store] = []
    for k, (v, strides) in enumerate(zip(body.outputs, results, strict=True)):
        where = _indices(v.tensor.static_shape, outer)
        stores = outside
        if where is None or not reductions:
            where, stores = _indices(v.tensor.static_shape, full), inside
        if where is None:
            raise _CannotLowerError(f"the result {v.type} is neither what is reduced nor what remains of it")
        stores.append(Store(len(operands) + k, simplify(linear(where, strides), extents), values.element(v, where)))
    stages += [Map(loops_, tuple(stores)) for loops_, stores in ((inner, inside), ((), outside)) if stores]
    buffers = tuple(v.dtype for v in (*body.inputs, *body.outputs))
    return LoopNest(buffers, len(results), tuple(const(d) for d, _ in outer), tuple(stages))


_reasons: dict[Graph, str | None] = {}


def why_not(body: Graph) -> str | None:
    """None when the body of a fusion can be lowered to one loop nest, else the reason why not."""
    if body not in _reasons:
        if len(_reasons) > 4096:  # forget rather than grow without bound
            _reasons.clear()
        _reasons[body] = _reason(body)
    return _reasons[body]


def _reason(body: Graph) -> str | None:
    for v in (*body.inputs, *body.outputs):
        if not isinstance(v.type, TensorType) or not v.type.is_static:
            return f"{v.type} has no fixed size"
    inputs, outputs = (
        tuple(Layout.dense(v.tensor.static_shape).strides for v in values) for values in (body.inputs, body.outputs)
    )
    try:
        _nest(body, inputs, outputs)
    except _CannotLowerError as reason:
        return str(reason)
    return None


# -- nest to launches -------------------------------------------------------------------------------------------------


def lower(node: Node, operands: Sequence[Placed], results: Sequence[Placed], threads: int = 1) -> list[Launch]:
    """The launches that compute a node, or a fusion of nodes, from `operands` into `results`.

    One launch, or one a region when an operation treats parts of its result differently (a pad's borders); none when
    there is nothing to compute. Operands and results may lie anywhere; a result may be the memory of an operand that is
    read only at the element that is written.

    Raises CompileError naming the operation that has no kernel.
    """
    body = node.attrs["body"] if node.op.kind is Kind.FUSION else _single(node)
    if all(0 in r.shape for r in results):
        return []
    nest = nest_of(body, [p.layout for p in operands], [p.layout for p in results])
    names = _names(body.nodes if node.op.kind is Kind.FUSION else (node,))
    return launches(nest, [*operands, *results], threads, names)


def _single(node: Node) -> Graph:
    inputs = [input_value(f"x{k}", v.type) for k, v in enumerate(node.inputs)]
    return Graph(inputs, make(node.op, *inputs, **node.attrs))


def _names(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(f"{n.op.name}{describe_location(n)}" for n in nodes if n.op.kind is not Kind.LEAF)


def lower_copy(source: Placed, target: Placed, threads: int = 1) -> list[Launch]:
    """The launches that copy a value from one layout to another; any element type; none when it is empty."""
    if 0 in target.shape:
        return []
    # bits are bits: what matters is how many
    size = source.dtype.itemsize
    parts, width = (2, 8) if size == 16 else (1, size)
    bits = dtype_of(f"uint{8 * width}")
    extents = (*target.shape, parts)
    offsets = []
    for strides in (source.strides, target.strides):
        steps = (*(s * parts for s in strides), 1)
        offsets.append(simplify(linear([index(k) for k in range(len(steps))], steps), extents))
    store = Store(1, offsets[1], load(0, offsets[0], bits))
    nest = LoopNest((bits, bits), 1, tuple(map(const, extents)), (Map((), (store,)),))
    return launches(nest, [source, target], threads, ("copy",))


def launches(
    nest: LoopNest, placed: Sequence[Placed], threads: int, names: tuple[str, ...], *, ordered: bool = False
) -> list[Launch]:
    """The launches of a loop nest with numbers for extents and strides, whose buffer k is `placed[k]`.

    `names` says for people what it computes. The loops may come in any order and need not be merged; `ordered` keeps
    their order, for stores that later ones overwrite (give one thread then).
    """
    result = []
    for piece in [nest] if ordered else loops.split_domain(nest):
        piece, operands = _used(piece, placed)
        s = _schedule(piece, threads, ordered)
        where = tuple(p.operand for p in operands)
        result.append(Launch(s.kernel, where, nest.outputs, s.integers, s.tasks, s.scratch_bytes, names, s.work))
    return result


class _Schedule(NamedTuple):
    """A finished kernel, and the numbers of a launch that do not depend on where its operands lie."""

    kernel: LoopNest
    integers: tuple[int, ...]
    tasks: int
    scratch_bytes: int
    work: int


@lru_cache(maxsize=4096)  # layers repeat
def _schedule(nest: LoopNest, threads: int, ordered: bool) -> _Schedule:
    nest = settle_extrema(nest)
    nest = loops.keep_costly(nest, _TRANSCENDENTAL)
    nest = loops.drop_unit_loops(loops.split_divided(loops.drop_unit_loops(nest)))
    nest = loops.collapse(nest if ordered else loops.order(nest))
    nest = loops.parallel_first(nest if ordered else loops.unroll_lanes(nest), threads)
    work = math.prod(e.attr for e in (*nest.extents, *loops.inner_extents(nest))) * _cost(nest)
    steps = nest.extents[0].attr if nest.extents else 1
    chunk = ceil_div(steps, max(1, min(threads, steps, work // _TASK_WORK)))
    if chunk < steps and len(nest.extents) == 1 and not loops.inner_extents(nest):
        chunk = ceil_div(chunk, 64) * 64  # whole vectors and cache lines
    kernel, integers = loops.parametrise(nest)
    if kernel.extents:
        kernel, integers = replace(kernel, params=kernel.params + 1), (*integers, chunk)
    return _Schedule(kernel, integers, ceil_div(steps, chunk), loops.scratch_bytes(nest), work)


def _used(nest: LoopNest, placed: Sequence[Placed]) -> tuple[LoopNest, list[Placed]]:
    """Without operands that are not read, and with operands that are the same memory merged into one."""
    first_output = len(placed) - nest.outputs
    read = {x.attr for x in walk(loops.expressions(nest)) if x.op == "load" and x.attr < first_output}
    numbers: dict[tuple[Operand, DType], int] = {}
    renamed: dict[int, int] = {}
    kept: list[Placed] = []
    for k in sorted(read):
        key = placed[k].operand, nest.buffers[k]
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(placed[k])
        renamed[k] = numbers[key]
    inputs = len(kept)
    kept += placed[first_output:]
    buffers = [nest.buffers[next(k for k, n in renamed.items() if n == number)] for number in range(inputs)]
    for k in range(first_output, len(placed)):
        renamed[k] = inputs + k - first_output
    aliased = {(a, b) for a in range(inputs) for b in range(inputs, len(kept)) if kept[a].buffer == kept[b].buffer}

    def change(e: Scalar) -> Scalar:
        return rewrite(e, lambda x: load(renamed[x.attr], x.args[0], x.dtype) if x.op == "load" else None)

    buffers_of = [renamed.get(k, -1) for k in range(len(placed))]
    stages = tuple(loops.rewritten(s, change, buffers=buffers_of) for s in nest.stages)
    dtypes = (*buffers, *nest.buffers[first_output:])
    in_place = {(a, b) for a, b in aliased if kept[a].operand == kept[b].operand and dtypes[a] == dtypes[b]}
    changed = replace(nest, buffers=dtypes, stages=stages, aliased=frozenset(aliased), in_place=frozenset(in_place))
    return changed, kept


def _cost(nest: LoopNest) -> int:
    """Scalar operations at one point."""
    counts = Counter(
        x.op for x in walk(loops.expressions(nest)) if x.dtype.name != "int64" and x.op not in ("const", "temp")
    )
    return max(1, sum(_COSTLY.get(op, 1) * n for op, n in counts.items()))
