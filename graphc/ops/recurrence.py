"""Recurrent layers as their kernel takes them: recurrent weights packed, layers that do not need each other side by side.

`graphc.passes.recurrence` puts `recurrence` in the place of lstm, gru and rnn (see graphc.ops.recurrent for what those
compute). A step of a layer is one or two matrix products with the state, and the arithmetic of its gates behind them.
The gates of one hidden unit are needed together, so a panel of packed weights holds the columns of all gates for some
hidden units:

    r[gates * H, H]  ->  [ceil(H / width), H, gates * width]    width: a few vectors of hidden units
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops import recurrent
from graphc.ops.layout import LATER
from graphc.ops.spec import REGISTRY, Kind, OpSpec, Sample, expect, register

__all__ = ["STATES", "Operands", "has_vector", "pack_gates", "products", "recurrence"]

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
    """Recurrent weights r[sum(gates) * H, H] packed for products of so many gates each."""
    hidden = r.shape[1]
    panels = -(-hidden // width)
    zero = np.zeros((), r.dtype.numpy)
    packed, first = [], 0
    for n in gates:
        rows = ops.slice(r, starts=(first * hidden, 0), stops=((first + n) * hidden, hidden), steps=(1, 1))
        columns = ops.reshape(rows, shape=(n, hidden, hidden))
        columns = ops.pad(columns, zero, low=(0, 0, 0), high=(0, panels * width - hidden, 0))
        columns = ops.transpose(ops.reshape(columns, shape=(n, panels, width, hidden)), perm=(1, 3, 0, 2))
        packed.append(ops.reshape(columns, shape=(panels, hidden, n * width)))
        first += n
    return packed


class Operands:
    """The operands (values, types, arrays, places) of a `recurrence` by their names.

    Each layer has x (projected inputs), w (one entry a product), initial (one a state), vector (one or none); all share
    `lengths` (one or none).
    """

    def __init__(self, operands: Sequence[Any], cell: str, reverse: Sequence[bool], **attrs: Any) -> None:
        late, peephole = attrs.get("linear_before_reset", False), attrs.get("peephole", False)
        self.products, self.states = products(cell, late), STATES[cell]
        vectors = int(has_vector(peephole, late))
        each = 1 + len(self.products) + self.states + vectors
        shared = int(attrs.get("lengths", False))
        expect(
            len(operands) == each * len(reverse) + shared,
            f"recurrence: {len(operands)} operands, {each} for each of {len(reverse)} layers and {shared} more are needed",
        )
        layers = [operands[k * each : (k + 1) * each] for k in range(len(reverse))]
        a, b = 1 + len(self.products), 1 + len(self.products) + self.states
        self.x = [layer[0] for layer in layers]
        self.w = [layer[1:a] for layer in layers]
        self.initial = [layer[a:b] for layer in layers]
        self.vector = [layer[b:] for layer in layers]
        self.lengths = operands[each * len(reverse) :]


def _type(*operands: TensorType, cell: str, reverse: Sequence[bool], **attrs: Any) -> tuple[TensorType, ...]:
    given = Operands(operands, cell, reverse, **attrs)
    first = given.x[0]
    results: list[TensorType] = []
    for x, w, initial in zip(given.x, given.w, given.initial, strict=True):
        expect(x == first, f"recurrence: layers side by side have inputs of one type, here {first} and {x}")
        hidden = initial[0].shape[1]
        expect(
            all(p.rank == 3 and p.shape[1] == hidden and p.dtype == x.dtype for p in w),
            f"recurrence: the packed weights are {', '.join(map(str, w))}; [panels, {hidden}, columns] is needed",
        )
        results += [x.with_shape((x.shape[0], x.shape[1], hidden)), *initial]
    return tuple(results)


def _reference(*operands: np.ndarray, cell: str, reverse: Sequence[bool], **attrs: Any) -> tuple[np.ndarray, ...]:
    given = Operands(operands, cell, reverse, **attrs)
    layer = REGISTRY[cell].reference
    assert layer is not None
    results: list[np.ndarray] = []
    for x, w, initial, vector, back in zip(given.x, given.w, given.initial, given.vector, reverse, strict=True):
        r = np.concatenate([_unpacked(p, n) for p, n in zip(w, given.products, strict=True)])
        results += layer(x, r, *initial, *vector, *given.lengths, reverse=back, **attrs)
    return tuple(results)


def _unpacked(packed: np.ndarray, gates: int) -> np.ndarray:
    """The weights [gates * H, H] that were packed."""
    panels, hidden, columns = packed.shape
    rows = packed.reshape(panels, hidden, gates, columns // gates).transpose(2, 0, 3, 1)
    return rows.reshape(gates, -1, hidden)[:, :hidden].reshape(gates * hidden, hidden)


def _packed(r: np.ndarray, gates: Sequence[int], width: int) -> list[np.ndarray]:
    """`pack_gates` of an array."""
    hidden = r.shape[1]
    panels = -(-hidden // width)
    full = np.zeros((sum(gates), panels * width, hidden), r.dtype)
    full[:, :hidden] = r.reshape(-1, hidden, hidden)
    parts = np.split(full.reshape(-1, panels, width, hidden), np.cumsum(gates)[:-1])
    return [np.ascontiguousarray(p.transpose(1, 3, 0, 2)).reshape(panels, hidden, -1) for p in parts]


def _samples() -> Iterable[Sample]:
    for cell in STATES:
        for sample in REGISTRY[cell].samples():
            attrs = dict(sample.attrs)
            back = attrs.pop("reverse", False)
            gates = products(cell, attrs.get("linear_before_reset", False))
            xp, r, *rest = sample.operands
            lanes = 64 // xp.itemsize
            lengths = [rest.pop()] if attrs.get("lengths", False) else []
            layer = (xp, *_packed(r, gates, lanes * (4 // max(gates))), *rest)
            yield Sample((*layer, *lengths), {"cell": cell, "reverse": (back,), **attrs})
    yield Sample((*layer, *layer), {"cell": cell, "reverse": (False, True), **attrs})


recurrence = register(
    OpSpec(
        name="recurrence",
        kind=Kind.ANCHOR,
        summary=(
            "Recurrent layers of one `cell` (lstm, gru, rnn) and one shape side by side, their recurrent weights packed "
            "by pack_gates; `reverse` says for each whether it walks backwards. Operands of each layer: xp, packed "
            "weights of each product, initial states, the vector if there is one; then the lengths. Results of each "
            "layer: y, last states."
        ),
        infer=_type,
        reference=_reference,
        template="recurrence",
        no_gradient=LATER,
        samples=_samples,
    )
)

assert set(STATES) == {op.name for op in (recurrent.lstm, recurrent.gru, recurrent.rnn)}
