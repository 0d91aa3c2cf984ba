"""Recurrent layers as their kernel takes them: recurrent weights packed, layers that do not need each other side by side.

`graphc.passes.recurrence` puts `recurrence` in the place of lstm, gru and rnn (see graphc.ops.recurrent for what those
compute). A step of a layer is one or two matrix products with the state, and the arithmetic of its gates behind them.
The gates of one hidden unit are needed together, so a panel of packed weights holds the columns of all gates for some
hidden units:

    r[gates * H, H]  ->  [ceil(H / width), H, gates * width]    width: a few vectors of hidden units

The product of the inputs with their weights is best done for all steps at once; but where the weights stay in a core's
own cache and a step has rows enough, the kernel does it step by step (`inputs`), and its result never sees memory.

With rows enough a product is done by Strassen's algorithm (`halved`, see graphc.kernels.strassen): a panel's columns are
two panels there, packed as `pack_strassen_weights` has them. Inputs that the kernel projects are more steps of the same
product then: a row is [h, x], and the packed weights are those of the state above those of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.dims import ceil_div
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.layout import LATER
from graphc.ops.spec import REGISTRY, Kind, OpSpec, Sample, expect, register

__all__ = ["STATES", "Operands", "has_vector", "pack_gates", "pack_halves", "products", "recurrence"]

#: the states of each cell
STATES = {"lstm": 2, "gru": 1, "rnn": 1}


def products(cell: str, linear_before_reset: bool = False) -> tuple[int, ...]:
    """The gates that each matrix product of a step computes; a later product multiplies what an earlier one made."""
    if cell == "gru":
        return (3,) if linear_before_reset else (2, 1)
    return (4,) if cell == "lstm" else (1,)


def has_vector(peephole: bool = False, linear_before_reset: bool = False) -> bool:
    """Whether a layer has a vector besides its weights: peepholes, or the bias behind the reset gate."""
    return peephole or linear_before_reset


def pack_gates(r: Value, gates: Sequence[int], width: int) -> list[Value]:
    """Weights r[sum(gates) * H, K] packed for products of so many gates each: [ceil(H / width), K, gates * width]."""
    hidden, depth = r.shape[0] // sum(gates), r.shape[1]
    panels = ceil_div(hidden, width)
    zero = np.zeros((), r.dtype.numpy)
    packed, first = [], 0
    for n in gates:
        rows = ops.slice(r, starts=(first * hidden, 0), stops=((first + n) * hidden, depth), steps=(1, 1))
        columns = ops.reshape(rows, shape=(n, hidden, depth))
        columns = ops.pad(columns, zero, low=(0, 0, 0), high=(0, panels * width - hidden, 0))
        columns = ops.transpose(ops.reshape(columns, shape=(n, panels, width, depth)), perm=(1, 3, 0, 2))
        packed.append(ops.reshape(columns, shape=(panels, depth, n * width)))
        first += n
    return packed


def pack_halves(r: Value, gates: Sequence[int], width: int, steps: int) -> list[Value]:
    """Weights r[sum(gates) * H, K] packed for halved products: [ceil(H / width), 8, steps / 2, gates * width / 2].

    `steps` is K filled up to an even number of rounds.
    """
    packed = []
    for n, panels in zip(gates, pack_gates(r, gates, width), strict=True):
        many, depth, columns = panels.shape
        matrix = ops.reshape(ops.transpose(panels, perm=(1, 0, 2)), shape=(depth, many * columns))
        packed.append(ops.pack_strassen_weights(matrix, columns=n * width // 2, channels=steps, guarded=True))
    return packed


class Operands:
    """The operands (values, types, arrays, places) of a `recurrence` by their names, one entry a layer.

    x is the projected input; or the layer's input, and then `bias` and `input_weights` (one a product; none if `halved`)
    project it.
    `weights` has one entry a product, `initial` one a state, `vector` one or none; all layers share `lengths` (one or
    none).
    """

    def __init__(self, operands: Sequence[Any], cell: str, reverse: Sequence[bool], **attrs: Any) -> None:
        late, peephole = attrs.get("linear_before_reset", False), attrs.get("peephole", False)
        self.products, self.states = products(cell, late), STATES[cell]
        self.inside, self.halved = attrs.get("inputs", False), attrs.get("halved", False)
        n = len(self.products)
        apart = n * (self.inside and not self.halved)
        sizes = (1, apart, int(self.inside), n, self.states, int(has_vector(peephole, late)))
        each, shared = sum(sizes), int(attrs.get("lengths", False))
        expect(
            len(operands) == each * len(reverse) + shared,
            f"recurrence: {len(operands)} operands, {each} for each of {len(reverse)} layers and {shared} more are needed",
        )
        ends = list(accumulate(sizes))
        layers = [operands[k * each : (k + 1) * each] for k in range(len(reverse))]
        parts = [[layer[end - size : end] for end, size in zip(ends, sizes, strict=True)] for layer in layers]
        self.x = [part[0][0] for part in parts]
        self.input_weights, self.bias, self.weights, self.initial, self.vector = (
            [part[k] for part in parts] for k in range(1, 6)
        )
        self.lengths = operands[each * len(reverse) :]


def _type(*operands: TensorType, cell: str, reverse: Sequence[bool], **attrs: Any) -> tuple[TensorType, ...]:
    types = [tensor_operand("recurrence", k, t) for k, t in enumerate(operands)]
    given = Operands(types, cell, reverse, **attrs)
    first = given.x[0]
    results: list[TensorType] = []
    for k, x in enumerate(given.x):
        expect(x == first, f"recurrence: layers side by side have inputs of one type, here {first} and {x}")
        initial = given.initial[k]
        hidden = initial[0].shape[1]
        if given.halved:
            depth = hidden + given.inside * x.shape[2]
            expect(
                all(
                    p.rank == 4 and p.shape[1] == 8 and 2 * p.shape[2] >= depth and p.dtype == x.dtype
                    for p in given.weights[k]
                ),
                f"recurrence: packed weights {', '.join(map(str, given.weights[k]))}; [panels, 8, {ceil_div(depth, 2)} or "
                "more, columns] is needed",
            )
            results += [x.with_shape((x.shape[0], x.shape[1], hidden)), *initial]
            continue
        for packed, depth in ((given.weights[k], hidden), (given.input_weights[k], x.shape[2])):
            expect(
                all(p.rank == 3 and p.shape[1] == depth and p.dtype == x.dtype for p in packed),
                f"recurrence: packed weights {', '.join(map(str, packed))}; [panels, {depth}, columns] is needed",
            )
        results += [x.with_shape((x.shape[0], x.shape[1], hidden)), *initial]
    return tuple(results)


def _reference(
    *operands: np.ndarray,
    cell: str,
    reverse: Sequence[bool],
    inputs: bool = False,
    halved: bool = False,
    from_zero: bool = False,
    **attrs: Any,
) -> tuple[np.ndarray, ...]:
    given = Operands(operands, cell, reverse, inputs=inputs, halved=halved, **attrs)
    layer = REGISTRY[cell].reference
    assert layer is not None
    results: list[np.ndarray] = []
    for k, back in enumerate(reverse):
        x, hidden = given.x[k], given.initial[k][0].shape[1]
        weights = (
            [_of_halves(w, hidden + inputs * x.shape[2]) for w in given.weights[k]] if halved else given.weights[k]
        )
        r = _joined(weights, given.products, hidden)
        if inputs:
            w = r[:, hidden:] if halved else _joined(given.input_weights[k], given.products, hidden)
            r, x = r[:, :hidden], x @ w.T + given.bias[k][0]
        results += layer(x, r, *given.initial[k], *given.vector[k], *given.lengths, reverse=back, **attrs)
    return tuple(results)


def _joined(packed: Sequence[np.ndarray], gates: Sequence[int], hidden: int) -> np.ndarray:
    """The weights of all products, as they were before `pack_gates`."""
    return np.concatenate([_unpacked(p, n, hidden) for p, n in zip(packed, gates, strict=True)])


def _unpacked(packed: np.ndarray, gates: int, hidden: int) -> np.ndarray:
    """The weights [gates * H, K] that were packed."""
    _, depth, columns = packed.shape
    rows = packed.reshape(-1, depth, gates, columns // gates).transpose(2, 0, 3, 1)
    return rows.reshape(gates, -1, depth)[:, :hidden].reshape(gates * hidden, depth)


def _of_halves(packed: np.ndarray, depth: int) -> np.ndarray:
    """The panels [panels, K, columns] that were packed for a halved product: their quarters are among the matrices."""
    b11, b21, b22, b12 = (packed[:, i] for i in (0, 1, 2, 7))
    rows = np.concatenate([np.concatenate([b11, b12], axis=2), np.concatenate([b21, b22], axis=2)], axis=1)
    return rows[:, :depth]


def _in_halves(panels: np.ndarray) -> np.ndarray:
    """`pack_halves` of panels that are packed already."""
    many, depth, columns = panels.shape
    pack = REGISTRY["pack_strassen_weights"].reference
    assert pack is not None
    matrix = panels.transpose(1, 0, 2).reshape(depth, many * columns)
    packed: np.ndarray = pack(matrix, columns=columns // 2, channels=ceil_div(depth, 32) * 32, guarded=True)
    return packed


def _packed(r: np.ndarray, gates: Sequence[int], width: int) -> list[np.ndarray]:
    """`pack_gates` of an array."""
    hidden, depth = r.shape[0] // sum(gates), r.shape[1]
    panels = ceil_div(hidden, width)
    full = np.zeros((sum(gates), panels * width, depth), r.dtype)
    full[:, :hidden] = r.reshape(-1, hidden, depth)
    parts = np.split(full.reshape(-1, panels, width, depth), np.cumsum(gates)[:-1])
    return [np.ascontiguousarray(p.transpose(1, 3, 0, 2)).reshape(panels, depth, -1) for p in parts]


def _samples() -> Iterable[Sample]:
    draw = np.random.default_rng(0).standard_normal
    for cell in STATES:
        for sample in REGISTRY[cell].samples():
            attrs = dict(sample.attrs)
            back = attrs.pop("reverse", False)
            gates = products(cell, attrs.get("linear_before_reset", False))
            xp, r, *rest = sample.operands
            width = 64 // xp.itemsize * (4 // max(gates))
            lengths = [rest.pop()] if attrs.get("lengths", False) else []
            weights = _packed(r, gates, width)
            layer = (xp, *weights, *rest)
            yield Sample((*layer, *lengths), {"cell": cell, "reverse": (back,), **attrs})
            if not (lengths and back):
                x, w, bias = (draw(s).astype(xp.dtype) for s in ((*xp.shape[:2], 6), (len(r), 6), (len(r),)))
                inside = (x, *_packed(w, gates, width), bias, *weights, *rest)
                yield Sample((*inside, *lengths), {"cell": cell, "reverse": (back,), "inputs": True, **attrs})
            wide = 2 * width if sum(gates) % 2 else width
            halves = [_in_halves(p) for p in _packed(r, gates, wide)]
            yield Sample((xp, *halves, *rest, *lengths), {"cell": cell, "reverse": (back,), "halved": True, **attrs})
            if not ((lengths and back) or attrs.get("linear_before_reset", False)):
                halves = [_in_halves(p) for p in _packed(np.concatenate([r, w], axis=1), gates, wide)]
                joined = (x, bias, *halves, *rest)
                joined_attrs = {"cell": cell, "reverse": (back,), "inputs": True, "halved": True, **attrs}
                yield Sample((*joined, *lengths), joined_attrs)
        yield Sample((*layer, *layer), {"cell": cell, "reverse": (False, True), **attrs} | {"lengths": False})


recurrence = register(
    OpSpec(
        name="recurrence",
        kind=Kind.ANCHOR,
        summary=(
            "Recurrent layers of one `cell` (lstm, gru, rnn) and one shape side by side, their recurrent weights packed "
            "by pack_gates; `reverse` says for each whether it walks backwards. Operands of each layer: xp (or with "
            "`inputs` x, packed input weights of each product and the bias), packed weights of each product, initial "
            "states, the vector if there is one; then the lengths. Results of each layer: y, last states. With `halved` "
            "the weights of a product are packed by pack_halves, those of the state above those of the inputs. With "
            "`from_zero` the first initial state is known to be zero, and the first step has no product."
        ),
        infer=_type,
        reference=_reference,
        template="recurrence",
        writes_strided=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=_samples,
    )
)
