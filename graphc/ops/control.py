"""Control flow: operations that hold closed graphs as bodies. What a body reads from outside is an explicit operand.

The types of carried values are fixed, in the way that a body's declared input type may leave extents symbolic: the
initial value and every turn's new value must fit it. References interpret the bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.ir.dims import DimLike, fresh_symbol
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, input_value
from graphc.ir.interpret import run
from graphc.ir.types import TensorType, Type, tensor
from graphc.ops.elementwise import add, lt, mul, neg
from graphc.ops.reduce import reduce_sum
from graphc.ops.spec import Gradient, Kind, OpSpec, Sample, expect, register
from graphc.ops.typing import fits, join, outside

__all__ = ["by_walk", "check_body", "if_", "loop", "passed", "scan", "trip_length"]

INT64, BOOL = dtype_of("int64"), dtype_of("bool")


def by_walk(name: str) -> Gradient:
    """The gradient of an operation with bodies: a walk over them, which stands above this layer."""

    def gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
        from graphc.autodiff.control import GRADIENTS

        return GRADIENTS[name](node, cotangents, wanted)

    return gradient


def _scalar(name: str, what: str, t: Type, wanted: TensorType) -> None:
    expect(t == wanted, f"{name}: {what} is {t}, {wanted} is needed")


def check_body(name: str, body: Graph, operands: Sequence[Type]) -> None:
    """Each operand fits the body's input of its place."""
    expect(
        len(body.inputs) == len(operands),
        f"{name}: the body takes {len(body.inputs)} values ({', '.join(body.input_names)}), {len(operands)} are passed",
    )
    for given, value, label in zip(operands, body.inputs, body.input_names, strict=True):
        expect(fits(given, value.type), f"{name}: the body's input {label!r} is {value.type}, it is passed {given}")


def passed(body: Graph, operands: Sequence[Type]) -> tuple[Type, ...]:
    """The types that a body's inputs must have: as declared where the operand fits, else the operand's own."""
    return tuple(v.type if fits(t, v.type) else t for t, v in zip(operands, body.inputs, strict=False))


def _carried(name: str, k: int, initial: Type, declared: Type, new: Type) -> Type:
    """The type of a carried value after any number of turns."""
    expect(fits(new, declared), f"{name}: carried value {k} is {declared}, the body makes it {new}")
    if initial == declared == new:
        return initial
    if isinstance(initial, TensorType) and isinstance(declared, TensorType) and isinstance(new, TensorType):
        same = [
            a if a == b == c else fresh_symbol()
            for a, b, c in zip(initial.shape, declared.shape, new.shape, strict=True)
        ]
        return initial.with_shape(tuple(same))
    return outside(declared, [initial])


def _stack(pieces: list[np.ndarray], t: Type) -> np.ndarray:
    """The turns' results on a new first axis; extents of no turn at all that nothing tells are 0."""
    assert isinstance(t, TensorType)
    if pieces:
        return np.stack(pieces)
    return np.zeros((0, *(d if isinstance(d, int) else 0 for d in t.shape)), t.dtype.numpy)


# ----------------------------------------------------------------------------------------------------------- if_


def _if_type(condition: Type, *operands: Type, then_body: Graph, else_body: Graph) -> tuple[Type, ...]:
    _scalar("if_", "the condition", condition, tensor(BOOL))
    for body in (then_body, else_body):
        check_body("if_", body, operands)
    counts = len(then_body.outputs), len(else_body.outputs)
    expect(counts[0] == counts[1], f"if_: the branches have {counts[0]} and {counts[1]} results")
    pairs = zip(then_body.outputs, else_body.outputs, strict=True)
    return tuple(outside(join(a.type, b.type, f"if_: result {k}"), operands) for k, (a, b) in enumerate(pairs))


def _if_reference(condition: np.ndarray, *operands: Any, then_body: Graph, else_body: Graph) -> tuple[Any, ...]:
    return run(then_body if condition else else_body, *operands)


def _if_samples() -> Iterable[Sample]:
    x = input_value("x", tensor("float32", 3))
    bodies = {"then_body": Graph([x], [add(x, 1.0), x]), "else_body": Graph([x], [mul(x, 2.0), neg(x)])}
    for flag in (True, False):
        yield Sample((np.bool_(flag), np.arange(3, dtype=np.float32)), bodies)


if_ = register(
    OpSpec(
        name="if_",
        kind=Kind.CONTROL,
        summary=(
            "The results of `then_body` on the operands where the condition (bool, rank 0) holds, else of `else_body`."
        ),
        infer=_if_type,
        reference=_if_reference,
        body_types=lambda types, *, then_body, else_body: (
            passed(else_body, types[1:]),
            passed(then_body, types[1:]),
        ),
        gradient=by_walk("if_"),
        samples=_if_samples,
    )
)

# ---------------------------------------------------------------------------------------------------------- loop


def trip_length(trip_count: Value, condition: Value, body: Graph) -> int | None:
    """How many turns a loop takes, when that is sure: a constant count, and conditions that are constantly true."""
    conditions = (condition.literal, body.outputs[0].literal)
    if trip_count.literal is None or any(c is None or not c for c in conditions):
        return None
    return max(int(trip_count.literal), 0)


def _loop_type(
    trip_count: Type, condition: Type, *operands: Type, body: Graph, carries: int, length: DimLike | None = None
) -> tuple[Type, ...]:
    _scalar("loop", "the trip count", trip_count, tensor(INT64))
    _scalar("loop", "the condition", condition, tensor(BOOL))
    expect(0 <= carries <= len(operands), f"loop: {carries} carried values among {len(operands)} operands")
    check_body("loop", body, (trip_count, condition, *operands))
    expect(
        len(body.outputs) >= 1 + carries,
        f"loop: the body has {len(body.outputs)} results; a condition and {carries} carried values are needed",
    )
    _scalar("loop", "the body's condition", body.outputs[0].type, tensor(BOOL))
    initial, declared = operands[:carries], (v.type for v in body.inputs[2:])
    new = [v.type for v in body.outputs[1 : 1 + carries]]
    final = [_carried("loop", k, *types) for k, types in enumerate(zip(initial, declared, new, strict=False))]
    turns = fresh_symbol() if length is None else length
    stacked = []
    for k, v in enumerate(body.outputs[1 + carries :]):
        expect(isinstance(v.type, TensorType), f"loop: scan output {k} is {v.type}, a tensor is needed")
        one = outside(v.type, operands)
        assert isinstance(one, TensorType)
        stacked.append(one.with_shape((turns, *one.shape)))
    return (*final, *stacked)


def _loop_reference(
    trip_count: np.ndarray, condition: np.ndarray, *operands: Any, body: Graph, carries: int, length: int | None = None
) -> tuple[Any, ...]:
    state, captures = operands[:carries], operands[carries:]
    collected: list[list[np.ndarray]] = [[] for _ in body.outputs[1 + carries :]]
    i = 0
    while i < int(trip_count) and condition:
        condition, *results = run(body, np.int64(i), condition, *state, *captures)
        state = tuple(results[:carries])
        for pieces, piece in zip(collected, results[carries:], strict=True):
            pieces.append(piece)
        i += 1
    stacked = (_stack(pieces, v.type) for pieces, v in zip(collected, body.outputs[1 + carries :], strict=True))
    return (*state, *stacked)


def _loop_samples() -> Iterable[Sample]:
    i, go = input_value("i", tensor(INT64)), input_value("go", tensor(BOOL))
    total, step = input_value("total", tensor("float32", 2)), input_value("step", tensor("float32", 2))
    new = add(total, step)
    body = Graph([i, go, total, step], [lt(reduce_sum(new, axes=(0,)), 20.0), new, mul(new, new)])
    start, by = np.zeros(2, np.float32), np.array([1, 2], np.float32)
    for trips in (4, 100, 0):
        yield Sample((np.int64(trips), np.bool_(True), start, by), {"body": body, "carries": 1})
    always = Graph([i, go, total, step], [go, new, i])
    yield Sample((np.int64(3), np.bool_(True), start, by), {"body": always, "carries": 1, "length": 3})


loop = register(
    OpSpec(
        name="loop",
        kind=Kind.CONTROL,
        summary=(
            "ONNX's Loop. Operands: trip count (int64), condition (bool), `carries` carried values, captures. "
            "The body maps (turn, "
            "condition, carried, captures) to (condition, carried, scan outputs); scan outputs are stacked on "
            "a new first axis, "
            "whose extent is `length` where it is known (see trip_length)."
        ),
        infer=_loop_type,
        reference=_loop_reference,
        body_types=lambda types, *, body, **_: (passed(body, types),),
        gradient=by_walk("loop"),
        samples=_loop_samples,
    )
)

# ---------------------------------------------------------------------------------------------------------- scan


def _scan_type(
    *operands: Type,
    body: Graph,
    carries: int,
    scanned: int,
    reverse: bool = False,
    length: DimLike | None = None,
    save: str = "contractions",
    checkpoint: int = 0,
    window: int = 0,
) -> tuple[Type, ...]:
    expect(save in ("contractions", "carries"), f"scan: save is {save!r}, not 'contractions' or 'carries'")
    expect(checkpoint >= 0 and window >= 0, f"scan: checkpoint {checkpoint} and window {window} cannot be negative")
    expect(
        carries + scanned <= len(operands),
        f"scan: {carries} carried and {scanned} scanned values among {len(operands)} operands",
    )
    initial, rows, captures = operands[:carries], operands[carries : carries + scanned], operands[carries + scanned :]
    turns = length
    slices = []
    for k, t in enumerate(rows):
        expect(
            isinstance(t, TensorType) and t.rank >= 1,
            f"scan: scanned value {k} is {t}, a tensor of rank 1 or more is needed",
        )
        assert isinstance(t, TensorType)
        agree = turns is None or turns == t.shape[0] or not (isinstance(turns, int) and isinstance(t.shape[0], int))
        expect(agree, f"scan: scanned value {k} is {t}, {turns} turns are needed along its first axis")
        turns = t.shape[0] if turns is None or isinstance(t.shape[0], int) else turns
        slices.append(t.with_shape(t.shape[1:]))
    expect(turns is not None, "scan: nothing is scanned, so `length` is needed")
    assert turns is not None
    check_body("scan", body, (*initial, *slices, *captures))
    expect(
        len(body.outputs) >= carries,
        f"scan: the body has {len(body.outputs)} results, {carries} carried values are needed",
    )
    pairs = zip(initial, body.inputs, body.outputs, strict=False)
    final = [_carried("scan", k, t, before.type, after.type) for k, (t, before, after) in enumerate(pairs)]
    stacked = []
    for k, v in enumerate(body.outputs[carries:]):
        expect(isinstance(v.type, TensorType), f"scan: output {k} is {v.type}, a tensor is needed")
        one = outside(v.type, operands)
        assert isinstance(one, TensorType)
        stacked.append(one.with_shape((turns, *one.shape)))
    return (*final, *stacked)


def _scan_bodies(
    types: Sequence[Type], *, body: Graph, carries: int, scanned: int, **_: Any
) -> tuple[tuple[Type, ...], ...]:
    rows = [t.with_shape(t.shape[1:]) for t in types[carries : carries + scanned] if isinstance(t, TensorType)]
    return (passed(body, (*types[:carries], *rows, *types[carries + scanned :])),)


def _scan_reference(
    *operands: Any,
    body: Graph,
    carries: int,
    scanned: int,
    reverse: bool = False,
    length: int | None = None,
    **_: Any,
) -> tuple[Any, ...]:
    state, rows, captures = operands[:carries], operands[carries : carries + scanned], operands[carries + scanned :]
    turns = range(len(rows[0]) if rows else length or 0)
    collected: list[list[np.ndarray]] = [[] for _ in body.outputs[carries:]]
    for t in reversed(turns) if reverse else turns:
        results = run(body, *state, *(r[t] for r in rows), *captures)
        state = results[:carries]
        for pieces, piece in zip(collected, results[carries:], strict=True):
            pieces.append(piece)
    stacked = (
        _stack(pieces[::-1] if reverse else pieces, v.type)
        for pieces, v in zip(collected, body.outputs[carries:], strict=True)
    )
    return (*state, *stacked)


def _scan_samples() -> Iterable[Sample]:
    h, x, w = (input_value(n, tensor("float32", 2)) for n in "hxw")
    new = add(mul(h, w), x)
    body = Graph([h, x, w], [new, mul(new, 2.0)])
    rows, start, weight = (
        np.arange(10, dtype=np.float32).reshape(5, 2),
        np.ones(2, np.float32),
        np.array([0.5, 0.25], np.float32),
    )
    for reverse in (False, True):
        yield Sample((start, rows, weight), {"body": body, "carries": 1, "scanned": 1, "reverse": reverse})
    yield Sample((start, rows[:0], weight), {"body": body, "carries": 1, "scanned": 1})
    growth = Graph([h], [add(h, 1.0)])
    yield Sample((start,), {"body": growth, "carries": 1, "scanned": 0, "length": 3})


scan = register(
    OpSpec(
        name="scan",
        kind=Kind.CONTROL,
        summary=(
            "Operands: `carries` carried values, `scanned` values whose first axis is walked, captures. The "
            "body maps (carried, slices, "
            "captures) to (carried, outputs); outputs are stacked on a new first axis. `reverse` walks from "
            "the end and stacks likewise. For the gradient: `save` says what of each turn is kept, its contractions "
            "or only its carries; `checkpoint` n keeps the carries of every n-th turn and runs the turns between "
            "again; `window` n lets no derivative through the carries from one n turns to those before."
        ),
        infer=_scan_type,
        reference=_scan_reference,
        body_types=_scan_bodies,
        gradient=by_walk("scan"),
        samples=_scan_samples,
    )
)
