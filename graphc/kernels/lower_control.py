"""Lowering of control flow: branches and loops become jumps between stretches of instructions.

A loop's carries live in its results' memory. Its turns run the same launches, which are pointed at each turn's slices of
what is scanned and stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphc.errors import CompileError
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.ir import Launch, Operand
from graphc.kernels.layouts import elementwise_operands
from graphc.kernels.program import Branch, Count, Exhausted, Jump, Label, Place, Placed, Rebind, operands_of
from graphc.kernels.schedule import schedule
from graphc.ops.spec import Kind, Layout

__all__ = ["lower_if", "lower_loop", "lower_scan"]


def _own(builder: ProgramBuilder, value: Placed) -> Placed:
    """`value` where its address does not change from run to run, as control flow needs it."""
    if builder.program.buffers[value.buffer].place in (Place.ARENA, Place.CONSTANT):
        return value
    copy = builder.temporary(value.shape, value.dtype)
    builder.copy(value, copy)
    return copy


@lowering("if_")
def lower_if(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """A branch: two stretches of instructions, of which a run takes one."""
    condition, *arguments = operands
    condition = _own(builder, condition)
    otherwise, end = builder.label(), builder.label()
    builder.emit(Branch(condition.operand, otherwise))
    builder.run(node.attrs["then_body"], arguments, results)
    builder.emit(Jump(end))
    builder.emit(Label(otherwise))
    builder.run(node.attrs["else_body"], arguments, results)
    builder.emit(Label(end))


@lowering("loop")
def lower_loop(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """ONNX's Loop: carries live in the results' memory; each turn computes new ones in their place, or aside and copies
    them back."""
    body, carries = node.attrs["body"], node.attrs["carries"]
    limit, condition, *rest = operands
    limit = _own(builder, limit)
    initial, captures = rest[:carries], rest[carries:]
    carried, stacked = results[:carries], results[carries:]
    counter, go_on = builder.temporary((), dtype_of("int64")), builder.temporary((), dtype_of("bool"))
    head, end = builder.label(), builder.label()

    builder.emit(Count(counter.operand, reset=True))
    builder.copy(condition, go_on)
    for source, target in zip(initial, carried, strict=True):
        builder.copy(source, target)
    first = builder.emit(Label(head))
    builder.emit(Exhausted(counter.operand, limit.operand, end))
    builder.emit(Branch(go_on.operand, end))
    new = [builder.temporary(v.tensor.static_shape, v.dtype) for v in body.outputs]
    new[1 : 1 + carries] = _carry_places(builder, body, 2, 1, carried)
    builder.run(body, [counter, go_on, *carried, *captures], new)
    for source, target in zip(new, [go_on, *carried], strict=False):
        if source is not target:
            builder.copy(source, target)
    for source, target in zip(new[1 + carries :], stacked, strict=True):
        _copy_slice(builder, target, counter, source, store=True)
    builder.emit(Count(counter.operand, reset=False))
    last = builder.emit(Jump(head))
    builder.emit(Label(end))
    builder.program.loops.append((first, last))


@lowering("scan")
def lower_scan(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """A counted loop. Before each turn its launches are pointed at this turn's slices of what is scanned and stacked."""
    body, attrs = node.attrs["body"], node.attrs
    carries, scanned = attrs["carries"], attrs["scanned"]
    initial, rows, captures = (
        operands[:carries],
        operands[carries : carries + scanned],
        operands[carries + scanned :],
    )
    carried, stacked = results[:carries], results[carries:]
    steps = rows[0].shape[0] if rows else attrs["length"]
    backwards = attrs.get("reverse", False)
    counter = builder.temporary((), dtype_of("int64"))
    limit = builder.constant(np.array(steps, np.int64))
    head, bind, end = builder.label(), builder.label(), builder.label()

    builder.emit(Count(counter.operand, reset=True))
    for source, target in zip(initial, carried, strict=True):
        builder.copy(source, target)
    builder.emit(Jump(bind))
    first = builder.emit(Label(head))
    apart: set[int] = set()  # slices that are copied: control flow inside the body needs them where they are
    while True:
        start, loops = len(builder.program.instructions), len(builder.program.loops)
        pieces = [
            builder.temporary(s.shape[1:], s.dtype) if k in apart else _stand_in(builder, s)
            for k, s in enumerate((*rows, *stacked))
        ]
        for k in range(scanned):
            if k in apart:
                _copy_slice(builder, rows[k], counter, pieces[k], backwards=backwards, store=False)
        new = [*_carry_places(builder, body, 0, 0, carried), *pieces[scanned:]]
        builder.run(body, [*carried, *pieces[:scanned], *captures], new)
        for source, target in zip(new, carried, strict=False):
            if source is not target:
                builder.copy(source, target)
        fixed = {
            o.buffer for i in builder.program.instructions[start:] if not isinstance(i, Launch) for o in operands_of(i)
        }
        found = {k for k, piece in enumerate(pieces) if piece.buffer in fixed} - apart
        if not found:
            break
        apart |= found
        del builder.program.instructions[start:], builder.program.loops[loops:]
    for k in range(scanned, len(pieces)):
        if k in apart:
            _copy_slice(builder, stacked[k - scanned], counter, pieces[k], backwards=backwards, store=True)
    builder.emit(Count(counter.operand, reset=False))
    stop = builder.emit(Label(bind))
    builder.emit(Exhausted(counter.operand, limit.operand, end))
    for k, stack in enumerate((*rows, *stacked)):
        if k not in apart:
            _bind(builder, range(start, stop), pieces[k], stack, counter, backwards)
    last = builder.emit(Jump(head))
    builder.emit(Label(end))
    builder.program.loops.append((first, last))


def _carry_places(
    builder: ProgramBuilder, body: Graph, inputs: int, outputs: int, carried: Sequence[Placed]
) -> list[Placed]:
    """Where each turn computes new carries, the body's outputs from number `outputs` on: in the place of the old one
    where nothing reads that any more, or only at the element that is written; else aside."""
    order = {node: k for k, node in enumerate(schedule(body))}
    places = []
    for k, place in enumerate(carried):
        old, new = body.inputs[inputs + k], body.outputs[outputs + k]
        seen, readers = [old], set()
        for v in seen:  # a view of the old one is the old one
            for reader in body.users.get(v, ()):
                readers.add(reader)
                if reader.op.view is not None:
                    seen.append(reader.outputs[0])
        producer = new.node
        reads = [j for j, v in enumerate(producer.inputs) if v in seen]
        safe = (
            producer.op.kind not in (Kind.LEAF, Kind.CONTROL)
            and producer.op.view is None
            and not any(v in body.outputs for v in seen)
            and all(order[reader] < order[producer] for reader in readers if reader is not producer)
            and (
                not reads
                or (len(reads) == 1 and producer.inputs[reads[0]] == old and reads[0] in elementwise_operands(producer))
            )
            and place.layout.is_dense
        )
        places.append(place if safe else builder.temporary(new.tensor.static_shape, new.dtype))
    return places


def _stand_in(builder: ProgramBuilder, stack: Placed) -> Placed:
    """A place for a turn's slice while the body is emitted; `_bind` puts the stack in its place."""
    return Placed(builder.buffer(1), stack.dtype, Layout(0, stack.shape[1:], stack.strides[1:]))


def _bind(builder: ProgramBuilder, turn: range, piece: Placed, stack: Placed, counter: Placed, backwards: bool) -> None:
    """Have the launches numbered `turn` find the slice of the counted turn where they have its stand-in."""
    slot, stride = _slice_of(stack, backwards)
    for at in turn:
        launch = builder.program.instructions[at]
        if not isinstance(launch, Launch):
            continue
        found = [k for k, o in enumerate(launch.operands) if o.buffer == piece.buffer]
        for k in found:
            base = Operand(slot.operand.buffer, slot.operand.byte_offset + launch.operands[k].byte_offset)
            places = (*launch.operands[:k], base, *launch.operands[k + 1 :])
            launch = builder.program.instructions[at] = replace(launch, operands=places)
            builder.emit(Rebind(at, k, base, counter.operand, stride))


def _copy_slice(
    builder: ProgramBuilder, stack: Placed, counter: Placed, piece: Placed, *, backwards: bool = False, store: bool
) -> None:
    """`stack[counter] = piece` or `piece = stack[counter]`: a copy of which one end moves from turn to turn.

    Backwards, the turns walk the stack from its last slice to its first."""
    slot, stride = _slice_of(stack, backwards)
    if 0 in slot.shape:
        return
    at = len(builder.program.instructions)
    # the rebinding stands before the copy; it names the launch that follows it
    builder.emit(Rebind(at + 1, 1 if store else 0, slot.operand, counter.operand, stride))
    if len(builder.copy(piece, slot) if store else builder.copy(slot, piece)) != 1:
        raise CompileError("a slice takes more than one launch to copy")


def _slice_of(stack: Placed, backwards: bool) -> tuple[Placed, int]:
    """The first turn's slice of a stack, and the bytes from one turn's to the next one's."""
    stride, offset = stack.strides[0], stack.layout.offset
    if backwards:
        offset, stride = offset + (stack.shape[0] - 1) * stride, -stride
    slot = Placed(stack.buffer, stack.dtype, Layout(offset, stack.shape[1:], stack.strides[1:]))
    return slot, stride * stack.dtype.itemsize
