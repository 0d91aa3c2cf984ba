"""Matrix products by Strassen's algorithm, as the layout pass puts them into a graph; see graphc.kernels.strassen.

The right operand is constant. Packing it makes the matrices that the algorithm multiplies with, 7 of one level and 49 of
two:

    w[K, N], or w[N, K, 1, 1] of a pointwise convolution  ->  [groups of panels, matrices, K / 2 or 4, columns]

With `guarded` the blocks that are not among them follow, for rows that need the product as it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.layout import LATER
from graphc.ops.spec import REGISTRY, Kind, OpSpec, Sample, expect, register

__all__ = ["conv_strassen", "dot_strassen", "matrices", "pack_strassen_weights"]


def matrices(levels: int, guarded: bool) -> int:
    """Packed matrices of a group of panels: what the products multiply with; behind those, where rows are guarded, the
    blocks of the operand that no product reads (of one level B12)."""
    return int(7**levels) + ((0, 1, 7)[levels] if guarded else 0)


def _sizes(w: TensorType) -> tuple[int, int]:
    """Steps and columns of a right operand."""
    if w.rank == 2:
        k, n = w.static_shape
    else:
        n, k, *_ = w.static_shape
    return k, n


# ------------------------------------------------------------------------------------------------------------ weights


def _pack_type(w: TensorType, *, columns: int, channels: int, guarded: bool, levels: int = 1) -> TensorType:
    w = tensor_operand("pack_strassen_weights", 0, w)
    expect(
        w.rank == 2 or (w.rank == 4 and w.shape[2:] == (1, 1)),
        f"pack_strassen_weights: operand 0 is {w}; a matrix or the weights of a 1x1 convolution are needed",
    )
    k, n = _sizes(w)
    tiles = 2**levels
    expect(
        channels >= k and channels % tiles == 0,
        f"pack_strassen_weights: {k} steps do not make {channels} in {tiles} parts",
    )
    return w.with_shape((ceil_div(n, tiles * columns), matrices(levels, guarded), ceil_div(channels, tiles), columns))


#: blocks of a matrix, rows of blocks
Blocks: TypeAlias = Sequence[Sequence[Any]]


def _halves(b: Blocks) -> tuple[Blocks, Blocks, Blocks, Blocks]:
    """B11, B12, B21, B22."""
    n = len(b) // 2
    b11, b12, b21, b22 = ([row[j : j + n] for row in b[i : i + n]] for i in (0, n) for j in (0, n))
    return b11, b12, b21, b22


def _right(b: Blocks, minus: Callable[[Any, Any], Any]) -> list[Any]:
    """What the products multiply with, in their order: 1, 7, or 49 matrices of 1, 4, or 16 blocks."""
    if len(b) == 1:
        return [b[0][0]]

    def less(x: Blocks, y: Blocks) -> Blocks:
        return [[minus(p, q) for p, q in zip(*rows, strict=True)] for rows in zip(x, y, strict=True)]

    b11, b12, b21, b22 = _halves(b)
    t1 = less(b12, b11)
    t2 = less(b22, t1)
    return [m for x in (b11, b21, b22, less(t2, b21), t1, t2, less(b22, b12)) for m in _right(x, minus)]


def _unread(b: Blocks) -> list[Any]:
    """The blocks that are not among `_right`'s matrices: of one level B12, of two those of the halves, and then B12's."""
    b11, b12, b21, b22 = _halves(b)
    if len(b) == 2:
        return [b12[0][0]]
    return [x[0][1] for x in (b11, b21, b22)] + [b12[0][0], b12[1][0], b12[1][1], b12[0][1]]


def _pack_reference(w: np.ndarray, *, columns: int, channels: int, guarded: bool, levels: int = 1) -> np.ndarray:
    matrix = w if w.ndim == 2 else w.reshape(w.shape[:2]).T
    (k, n), tiles = matrix.shape, 2**levels
    groups, part = ceil_div(n, tiles * columns), channels // tiles
    result = np.zeros((groups, matrices(levels, guarded), part, columns), w.dtype)
    for group, packed in enumerate(result):  # a group at a time: float64 takes room
        full = np.zeros((channels, tiles * columns))
        some = matrix[:, group * tiles * columns : (group + 1) * tiles * columns]
        full[:k, : some.shape[1]] = some
        blocks = [np.split(row, tiles, axis=1) for row in np.split(full, tiles)]
        for i, b in enumerate(_right(blocks, np.subtract) + (_unread(blocks) if guarded else [])):
            packed[i] = b
    return result


def _pack_decompose(node: Node) -> tuple[Value, ...]:
    """the matrices = sums of the blocks of one"""
    make = {name: REGISTRY[name] for name in ("concat", "pad", "reshape", "slice", "sub", "transpose")}
    (w,), a = node.inputs, node.attrs
    (k, n), (groups, _, part, columns) = _sizes(w.tensor), node.outputs[0].tensor.static_shape
    tiles = a["channels"] // part
    if w.rank == 4:
        w = make["transpose"](make["reshape"](w, shape=(n, k)), perm=(1, 0))
    room = (a["channels"] - k, tiles * columns * groups - n)
    padded = make["pad"](w, np.zeros((), w.dtype.numpy), low=(0, 0), high=room)
    parts = make["transpose"](
        make["reshape"](padded, shape=(tiles, part, groups, tiles, columns)), perm=(0, 3, 2, 1, 4)
    )

    def block(i: int, j: int) -> Value:
        some = make["slice"](parts, starts=(i, j, 0, 0, 0), stops=(i + 1, j + 1, groups, part, columns), steps=(1,) * 5)
        result: Value = make["reshape"](some, shape=(groups, 1, part, columns))
        return result

    blocks = [[block(i, j) for j in range(tiles)] for i in range(tiles)]
    return (make["concat"](*_right(blocks, make["sub"]), *(_unread(blocks) if a["guarded"] else []), axis=1),)


_W = np.linspace(-1, 1, 6 * 5, dtype=np.float32).reshape(6, 5)

pack_strassen_weights = register(
    OpSpec(
        name="pack_strassen_weights",
        kind=Kind.ANCHOR,
        summary="A right operand [K, N], or the weights [N, K, 1, 1] of a pointwise convolution, as the matrices of "
        "Strassen's algorithm on one or two `levels` for each group of panels; zero padded.",
        infer=_pack_type,
        reference=_pack_reference,
        decompose=_pack_decompose,
        packs=True,
        made_by_passes=True,
        samples=lambda: [
            Sample((_W,), {"columns": 2, "channels": 6, "guarded": False}),
            Sample((_W,), {"columns": 4, "channels": 8, "guarded": True}),
            Sample((_W.reshape(6, 5, 1, 1),), {"columns": 2, "channels": 8, "guarded": False}),
            Sample((_W,), {"columns": 1, "channels": 8, "guarded": True, "levels": 2}),
            Sample((_W.reshape(6, 5, 1, 1),), {"columns": 2, "channels": 12, "guarded": False, "levels": 2}),
        ],
    )
)

# ----------------------------------------------------------------------------------------------------------- products


def _multiply(a: np.ndarray, w: np.ndarray, levels: int) -> np.ndarray:
    """a[..., M, K] times a packed operand: its rows and columns, padding included, by the algorithm's products."""
    tiles, part = 2**levels, w.shape[2]
    a = np.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, -a.shape[-2] % tiles), (0, tiles * part - a.shape[-1])])
    return np.concatenate([_product(a, packed, levels) for packed in w], axis=-1)


def _product(a: np.ndarray, w: np.ndarray, levels: int) -> np.ndarray:
    """a[..., rows, steps] times the matrices of a group of panels."""
    if levels == 0:
        result: np.ndarray = a @ w[0]
        return result
    a11, a12, a21, a22 = (x for rows in np.split(a, 2, axis=-2) for x in np.split(rows, 2, axis=-1))
    s1 = a21 + a22
    s2 = s1 - a11
    left, n = (a11, a12, a12 - s2, a22, s1, s2, a11 - a21), 7 ** (levels - 1)
    p1, p2, p3, p4, p5, p6, p7 = (_product(x, w[i * n : (i + 1) * n], levels - 1) for i, x in enumerate(left))
    u = p1 + p6
    top = np.concatenate([p1 + p2, u + p5 + p3], axis=-1)
    return np.concatenate([top, np.concatenate([u + p7 - p4, u + p7 + p5], axis=-1)], axis=-2)


def _dot_type(a: TensorType, w: TensorType, *, columns_total: int, levels: int = 1) -> TensorType:
    a, w = tensor_operand("dot_strassen", 0, a), tensor_operand("dot_strassen", 1, w)
    expect(
        a.rank >= 2 and w.rank == 4, f"dot_strassen: operands are {a} and {w}; a matrix and packed panels are needed"
    )
    expect(a.dtype == w.dtype, f"dot_strassen: operand 1 is {w.dtype} but operand 0 is {a.dtype}")
    groups, _, part, columns = w.static_shape
    tiles = 2**levels
    expect(
        part < a.static_shape[-1] <= tiles * part,
        f"dot_strassen: operand 0 is {a} but operand 1 holds {tiles * part} rows",
    )
    expect(
        groups == ceil_div(columns_total, tiles * columns), f"dot_strassen: {w} does not hold {columns_total} columns"
    )
    return a.with_shape((*a.shape[:-1], columns_total))


dot_strassen = register(
    OpSpec(
        name="dot_strassen",
        kind=Kind.ANCHOR,
        summary="Matrix product of a[..., M, K] and an operand packed by pack_strassen_weights.",
        infer=_dot_type,
        reference=lambda a, w, *, columns_total, levels=1: np.ascontiguousarray(
            _multiply(a, w, levels)[..., : a.shape[-2], :columns_total]
        ),
        template="strassen",
        takes_epilogue=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=lambda: [
            Sample(
                (
                    np.linspace(-1, 1, m * 64, dtype=t).reshape(m, 64),
                    _pack_reference(
                        np.linspace(0, 1, 64 * n, dtype=t).reshape(64, n),
                        columns=32,
                        channels=64,
                        guarded=True,
                        levels=levels,
                    ),
                ),
                {"columns_total": n, "levels": levels},
            )
            for m, n, t in ((1, 5, np.float32), (13, 32, np.float32), (30, 67, np.float64))
            for levels in (1, 2)
        ],
    )
)


def _conv_type(x: TensorType, w: TensorType, *, filters: int, lanes: int, levels: int = 1) -> TensorType:
    x, w = tensor_operand("conv_strassen", 0, x), tensor_operand("conv_strassen", 1, w)
    expect(x.rank == 5, f"conv_strassen: operand 0 is {x}; [N, blocks, H, W, block] is needed")
    expect(w.rank == 4, f"conv_strassen: operand 1 is {w}; weights packed by pack_strassen_weights are needed")
    expect(x.dtype == w.dtype, f"conv_strassen: operand 1 is {w.dtype} but operand 0 is {x.dtype}")
    groups, _, part, columns = w.static_shape
    channels, tiles = x.static_shape[1] * x.static_shape[4], 2**levels
    expect(part < channels <= tiles * part, f"conv_strassen: {x} does not go with weights {w}")
    expect(groups == ceil_div(filters, tiles * columns), f"conv_strassen: {w} does not hold {filters} filters")
    return x.with_shape((x.shape[0], ceil_div(filters, lanes), *x.shape[2:4], lanes))


def _conv_reference(x: np.ndarray, w: np.ndarray, *, filters: int, lanes: int, levels: int = 1) -> np.ndarray:
    n, blocks, high, wide, size = x.shape
    rows = x.transpose(0, 2, 3, 1, 4).reshape(n, high * wide, blocks * size)
    out = ceil_div(filters, lanes)
    y = np.zeros((n, high * wide, out * lanes), x.dtype)
    y[..., :filters] = _multiply(rows, w, levels)[:, : high * wide, :filters]
    return np.ascontiguousarray(y.reshape(n, high, wide, out, lanes).transpose(0, 3, 1, 2, 4))


def _conv_samples() -> Iterable[Sample]:
    for n, high, wide, filters in ((1, 3, 5, 8), (2, 4, 4, 21)):
        x = np.linspace(-1, 1, n * 4 * high * wide * 8, dtype=np.float32).reshape(n, 4, high, wide, 8)
        w = np.linspace(0, 1, filters * 32, dtype=np.float32).reshape(filters, 32, 1, 1)
        for levels in (1, 2):
            packed = _pack_reference(w, columns=16, channels=32, guarded=False, levels=levels)
            yield Sample((x, packed), {"filters": filters, "lanes": 8, "levels": levels})


conv_strassen = register(
    OpSpec(
        name="conv_strassen",
        kind=Kind.ANCHOR,
        summary="Pointwise convolution of blocked activations as a product by Strassen's algorithm; the result is that of "
        "conv_blocked up to rounding.",
        infer=_conv_type,
        reference=_conv_reference,
        template="strassen",
        takes_epilogue=True,
        dense_images=True,
        made_by_passes=True,
        no_gradient=LATER,
        samples=_conv_samples,
    )
)
