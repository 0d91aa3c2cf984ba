"""From graph to program: where every value lies, and which kernels compute it.

`build` walks a graph of static shapes once, in the order of `graphc.kernels.schedule`, and decides for every value *where* it lies:

- a view (transpose, slice, broadcast, most reshapes) lies in its operand's buffer under another layout;
- an operand of a concatenation is computed straight into its slice of the result, where its producer can write there;
- an elementwise result takes over the memory of an operand that nobody reads afterwards;
- a graph output is computed straight into the caller's array.

Everything else gets a buffer of its own; which buffers share memory is decided afterwards, from their lifetimes, by
the arena planner. What computes a node is up to the lowerings, one file a family; those of control flow
(`lower_control.py`) run the builder on the bodies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TypeAlias

import numpy as np

from graphc.errors import CompileError
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Node, Value, describe_location, make
from graphc.ir.types import TensorType
from graphc.kernels.layouts import as_layout, before_unit_axes, concat_slots, elementwise_operands, same_place
from graphc.kernels.program import Buffer, Instruction, Place, Placed, Program
from graphc.kernels.schedule import schedule
from graphc.kernels.share import share_kernels
from graphc.ops.fusion import anchor_of, fusion, split_fusion, template_of
from graphc.ops.spec import NEST_KINDS, Kind, Layout

__all__ = ["ProgramBuilder", "build", "lowering"]

#: lowers an anchor, alone or in a fusion with an epilogue, or control flow: (builder, node, operands, results) -> None
Lowering: TypeAlias = Callable[["ProgramBuilder", Node, list[Placed], list[Placed]], None]
LOWERINGS: dict[str, Lowering] = {}
#: the modules that register them; they import this one, so they are imported when the first program is built
_LOWERING_MODULES = tuple(
    f"graphc.kernels.lower_{part}"
    for part in (
        "attention", "contraction", "control", "ordered", "places", "recurrence", "strassen", "window", "winograd",
    )
)  # fmt: skip


def lowering(name: str) -> Callable[[Lowering], Lowering]:
    """Register the lowering of a kernel template, or of an operation with bodies by its name."""

    def enter(function: Lowering) -> Lowering:
        LOWERINGS[name] = function
        return function

    return enter


def build(graph: Graph, threads: int = 1) -> Program:
    """The program of a graph whose types are all static tensors; its inputs and outputs are dense.

    Raises CompileError naming the operation that has no kernel.
    """
    for module in _LOWERING_MODULES:
        import_module(module)
    builder = ProgramBuilder(threads)
    arguments = [builder.external(v, Place.INPUT, i) for i, v in enumerate(graph.inputs)]
    results = [builder.external(v, Place.OUTPUT, i) for i, v in enumerate(graph.outputs)]
    builder.run(graph, arguments, results)
    share_kernels(builder.program)
    return builder.program


@dataclass
class _Scope:
    """What is known about the values of one graph while its instructions are emitted."""

    placed: dict[Value, Placed]
    uses: Counter[Value]
    reserved: dict[Value, Placed] = field(default_factory=dict)  # where a value is to be computed
    reads: Counter[int] = field(default_factory=Counter)  # reads still to come, a buffer
    owned: set[int] = field(default_factory=set)  # buffers that this scope may overwrite


class ProgramBuilder:
    """Builds one Program. Lowerings get it to allocate memory and to emit launches.

    `threads` is how many threads will run the program: lowerings split their work for that many.
    """

    def __init__(self, threads: int = 1) -> None:
        self.program = Program()
        self.threads = threads
        self._labels = 0
        self._constants: dict[int, tuple[np.ndarray, int]] = {}
        self._spread: dict[tuple[int, Layout], Placed] = {}  # constants that were not dense, made so
        self._scope = _Scope({}, Counter())

    # -- memory ---------------------------------------------------------------------------------------------------

    def buffer(self, nbytes: int, place: Place = Place.ARENA, number: int = -1, array: np.ndarray | None = None) -> int:
        """A new buffer's number."""
        self.program.buffers.append(Buffer(max(nbytes, 1), place, number, array))
        return len(self.program.buffers) - 1

    def external(self, value: Value, place: Place, number: int) -> Placed:
        """An input or output of the program, dense."""
        _check_static(value)
        return Placed(
            self.buffer(value.tensor.nbytes, place, number), value.dtype, Layout.dense(value.tensor.static_shape)
        )

    def temporary(self, shape: Sequence[int], dtype: DType) -> Placed:
        """A dense workspace in the arena."""
        return Placed(self.buffer(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize), dtype, Layout.dense(shape))

    def constant(self, array: np.ndarray, dtype: DType | None = None) -> Placed:
        """An array that the program owns. A broadcast array (stride 0) is kept as it is, not expanded."""
        dtype = dtype or dtype_of(array)
        base, layout = as_layout(array)
        known = self._constants.get(id(array))
        if known is None or known[0] is not array:
            known = self._constants[id(array)] = (array, self.buffer(base.nbytes, Place.CONSTANT, array=base))
        return Placed(known[1], dtype, layout)

    def dense(self, value: Placed) -> Placed:
        """`value` itself when it is row-major without gaps, else a copy that is."""
        if value.layout.is_dense:
            return value
        owned = self.program.buffers[value.buffer].array
        if owned is not None:
            return self._dense_constant(value, owned)
        copy = self.temporary(value.shape, value.dtype)
        self.copy(value, copy)
        return copy

    def _dense_constant(self, value: Placed, owned: np.ndarray) -> Placed:
        key = (value.buffer, value.layout)
        if key not in self._spread:
            flat, (offset, shape, strides) = owned.reshape(-1), value.layout
            view = np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * flat.itemsize for s in strides])
            self._spread[key] = self.constant(np.ascontiguousarray(view), value.dtype)
        return self._spread[key]

    # -- instructions ---------------------------------------------------------------------------------------------

    def emit(self, instruction: Instruction) -> int:
        """Append an instruction; its number."""
        self.program.instructions.append(instruction)
        return len(self.program.instructions) - 1

    def copy(self, source: Placed, target: Placed) -> list[int]:
        """Emit a copy between two layouts of one shape and element type; the numbers of its launches."""
        from graphc.kernels.lower import lower_copy

        if 0 in source.shape:
            return []
        return [self.emit(launch) for launch in lower_copy(source, target, self.threads)]

    def anchor_operands(self, node: Node, operands: list[Placed]) -> tuple[Node, list[Placed]]:
        """The anchor of a node (an anchor, or a fusion with one) and where its operands lie.

        A fusion holds numbers that repeat as constants of its body; an anchor that reads one gets it as an array."""
        anchor = anchor_of(node)
        assert anchor is not None
        if anchor is node:
            return node, operands
        where = dict(zip(node.attrs["body"].inputs, operands, strict=True))
        return anchor, [where[v] if v in where else self._repeated(v) for v in anchor.inputs]

    def _repeated(self, value: Value) -> Placed:
        number = value
        while number.literal is None:
            number = number.node.inputs[0]
        filled = np.full(value.tensor.static_shape, number.literal.item(), value.dtype.numpy)
        return self.constant(filled, value.dtype)

    def apart(self, node: Node, operands: list[Placed], results: list[Placed]) -> None:
        """Compute a fusion in two kernels: its anchor into a workspace, then the rest of it. For lowerings whose
        template cannot take this epilogue."""
        from graphc.kernels.lower import lower

        if node.op.kind is not Kind.FUSION:
            raise CompileError(f"{node.op.name}: its template cannot write this result{describe_location(node)}")
        _, rest = split_fusion(node)
        anchor, read = self.anchor_operands(node, operands)
        made = [self.temporary(v.tensor.static_shape, v.dtype) for v in anchor.outputs]
        LOWERINGS[anchor.op.template or ""](self, anchor, read, made)
        after = make(fusion, *rest.inputs, body=rest)[0].node
        for launch in lower(after, [*made, *operands], results, self.threads):
            self.emit(launch)

    def label(self) -> int:
        """A new label's name; place it with `emit(Label(name))`."""
        self._labels += 1
        return self._labels

    # -- values ---------------------------------------------------------------------------------------------------

    def run(self, graph: Graph, arguments: Sequence[Placed], results: Sequence[Placed]) -> None:
        """Emit the instructions that compute `graph` from `arguments` (never overwritten) into `results`."""
        uses = Counter({v: len(users) for v, users in graph.users.items()})
        uses.update(graph.outputs)
        outer, self._scope = self._scope, _Scope(dict(zip(graph.inputs, arguments, strict=True)), uses)
        try:
            direct = self._reserve_outputs(graph, results)
            self._reserve_concats(graph)
            for node in schedule(graph):
                if node.op.name != "input":
                    self._node(node)
            for i, (value, result) in enumerate(zip(graph.outputs, results, strict=True)):
                if i not in direct:
                    self.copy(self._scope.placed[value], result)
        finally:
            self._scope = outer

    def _reserve_outputs(self, graph: Graph, results: Sequence[Placed]) -> set[int]:
        """Have outputs computed in place; the numbers of those for which that can be done."""
        direct = set()
        for i, (value, result) in enumerate(zip(graph.outputs, results, strict=True)):
            while value.node.op.name == "reshape" and result.layout.is_dense:  # the same memory under another shape
                value = value.node.inputs[0]
                result = Placed(
                    result.buffer, result.dtype, Layout.dense(value.tensor.static_shape, result.layout.offset)
                )
            if value not in self._scope.reserved and self._can_reserve(value, result.layout):
                self._scope.reserved[value] = result
                direct.add(i)
        return direct

    def _reserve_concats(self, graph: Graph) -> None:
        """Have the operands of concatenations computed in their slice of the result; outer concatenations first."""
        for node in reversed(graph.nodes):
            if node.op.name != "concat":
                continue
            result = self._result(node.outputs[0])
            for operand, slot in zip(node.inputs, concat_slots(node, result), strict=True):
                operand, slot = before_unit_axes(operand, slot)
                if operand not in self._scope.reserved and self._can_reserve(operand, slot.layout):
                    self._scope.reserved[operand] = slot
            self._scope.reserved[node.outputs[0]] = result

    def _can_reserve(self, value: Value, layout: Layout) -> bool:
        node = value.node
        if node.op.kind in (Kind.LEAF, Kind.HOST) or value in self._scope.placed:
            return False
        if node.op.kind is Kind.INJECTIVE and node.op.view is not None:
            return False
        anchor = anchor_of(node)
        return anchor is None or anchor.op.writes_strided or layout.is_dense

    def _result(self, value: Value) -> Placed:
        """Where to compute a value: the reserved place, or a new dense buffer."""
        reserved = self._scope.reserved.get(value)
        if reserved is not None:
            return reserved
        placed = self.temporary(value.tensor.static_shape, value.dtype)
        self._scope.owned.add(placed.buffer)
        return placed

    def _place(self, value: Value, placed: Placed) -> None:
        self._scope.placed[value] = placed
        self._scope.reads[placed.buffer] += self._scope.uses[value]

    def _node(self, node: Node) -> None:
        if node.op.name == "constant":
            literal = node.attrs["data"]
            self._place(node.outputs[0], self.constant(literal.array, literal.dtype))
            return
        for v in node.outputs:
            _check_static(v)
        operands = [self._scope.placed[v] for v in node.inputs]
        for p in operands:
            self._scope.reads[p.buffer] -= 1
        if node.op.view is not None and self._view(node, operands[0]):
            return
        if node.op.name == "concat":
            self._concat(node, operands)
            return
        results = self._take_over(node, operands) or [self._result(v) for v in node.outputs]
        self._compute(node, operands, results)
        self._note_updates(node, operands, results)
        for v, placed in zip(node.outputs, results, strict=True):
            self._place(v, placed)

    def _note_updates(self, node: Node, operands: list[Placed], results: list[Placed]) -> None:
        """Note which of the caller's arrays a result could overwrite element by element, should he give them away."""
        buffers = self.program.buffers
        outputs = [r for r in results if buffers[r.buffer].place is Place.OUTPUT]
        for k in elementwise_operands(node) if outputs else ():
            p = operands[k]
            if buffers[p.buffer].place is Place.INPUT and all(
                q.buffer != p.buffer or q.layout == p.layout for q in operands
            ):
                self.program.updates.update(
                    (p.buffer, r.buffer)
                    for r in outputs
                    if r.layout == p.layout and r.dtype.itemsize == p.dtype.itemsize
                )

    def _view(self, node: Node, operand: Placed) -> bool:
        assert node.op.view is not None
        value = node.outputs[0]
        layout = node.op.view(operand.layout, value.type, **node.attrs)
        if layout is None:
            return False
        placed = Placed(operand.buffer, operand.dtype, layout)
        reserved = self._scope.reserved.get(value)
        if reserved is not None and reserved != placed:
            self.copy(placed, reserved)
            placed = reserved
        self._place(value, placed)
        return True

    def _concat(self, node: Node, operands: list[Placed]) -> None:
        result = self._scope.reserved[node.outputs[0]]
        for operand, slot in zip(operands, concat_slots(node, result), strict=True):
            if not same_place(operand, slot):
                self.copy(operand, slot)
        self._place(node.outputs[0], result)

    def _take_over(self, node: Node, operands: list[Placed]) -> list[Placed] | None:
        """The result in the memory of an operand that dies here and is read only at the element that is written.

        Of several results only an anchor's first one: its epilogue reads everything before it stores.
        """
        if node.outputs[0] in self._scope.reserved or (len(node.outputs) != 1 and template_of(node) is None):
            return None
        value = node.outputs[0]
        for k in elementwise_operands(node):
            p = operands[k]
            whole = p.layout == Layout.dense(value.tensor.static_shape) and p.dtype.itemsize == value.dtype.itemsize
            alone = all(q.buffer != p.buffer for i, q in enumerate(operands) if i != k)
            if whole and alone and p.buffer in self._scope.owned and self._scope.reads[p.buffer] == 0:
                return [Placed(p.buffer, value.dtype, p.layout), *(self._result(v) for v in node.outputs[1:])]
        return None

    def _compute(self, node: Node, operands: list[Placed], results: list[Placed]) -> None:
        from graphc.kernels.lower import lower

        if all(0 in r.shape for r in results):
            return
        template = template_of(node)
        if template is not None:
            if template not in LOWERINGS:
                raise CompileError(f"{node.op.name}: no kernel template {template!r}{describe_location(node)}")
            LOWERINGS[template](self, node, operands, results)
        elif node.op.kind is Kind.CONTROL and node.op.name in LOWERINGS:
            LOWERINGS[node.op.name](self, node, operands, results)
        elif node.op.kind in (Kind.FUSION, *NEST_KINDS):
            for launch in lower(node, operands, results, self.threads):
                self.emit(launch)
        else:
            raise CompileError(f"{node.op.name}: no kernel for this operation{describe_location(node)}")


def _check_static(value: Value) -> None:
    if not isinstance(value.type, TensorType) or not value.type.is_static:
        raise CompileError(
            f"{value.node.op.name}: the result {value.type} has no fixed size{describe_location(value.node)}"
        )
