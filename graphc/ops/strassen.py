"""Matrix products by Strassen's algorithm, as the layout pass puts them into a graph; see graphc.kernels.strassen.

The right operand is constant. Packing it makes the seven matrices that the algorithm multiplies with:

    w[K, N], or w[N, K, 1, 1] of a pointwise convolution  ->  [pairs of panels, 7, K / 2, columns]

With `guarded` there is an eighth, B12, for rows that need the product as it is defined.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.layout import LATER
from graphc.ops.spec import REGISTRY, Kind, OpSpec, Sample, expect, register

__all__ = ["conv_strassen", "dot_strassen", "pack_strassen_weights"]


def _sizes(w: TensorType) -> tuple[int, int]:
    """Steps and columns of a right operand."""
    if w.rank == 2:
        k, n = w.static_shape
    else:
        n, k, *_ = w.static_shape
    return k, n


# ------------------------------------------------------------------------------------------------------------ weights


def _pack_type(w: TensorType, *, columns: int, channels: int, guarded: bool) -> TensorType:
    w = tensor_operand("pack_strassen_weights", 0, w)
    expect(
        w.rank == 2 or (w.rank == 4 and w.shape[2:] == (1, 1)),
        f"pack_strassen_weights: operand 0 is {w}; a matrix or the weights of a 1x1 convolution are needed",
    )
    k, n = _sizes(w)
    expect(
        channels >= k and channels % 2 == 0, f"pack_strassen_weights: {k} steps do not make {channels} in two halves"
    )
    return w.with_shape((ceil_div(n, 2 * columns), 7 + guarded, channels // 2, columns))


def _pack_reference(w: np.ndarray, *, columns: int, channels: int, guarded: bool) -> np.ndarray:
    matrix = w if w.ndim == 2 else w.reshape(w.shape[:2]).T
    (k, n), half = matrix.shape, channels // 2
    pairs = ceil_div(n, 2 * columns)
    result = np.zeros((pairs, 7 + guarded, half, columns), w.dtype)
    for pair, seven in enumerate(result):  # a pair at a time: float64 takes room
        full = np.zeros((channels, 2 * columns))
        part = matrix[:, pair * 2 * columns : (pair + 1) * 2 * columns]
        full[:k, : part.shape[1]] = part
        b11, b12 = full[:half, :columns], full[:half, columns:]
        b21, b22 = full[half:, :columns], full[half:, columns:]
        t1 = b12 - b11
        t2 = b22 - t1
        for i, b in enumerate((b11, b21, b22, t2 - b21, t1, t2, b22 - b12, b12)[: len(seven)]):
            seven[i] = b
    return result


def _pack_decompose(node: Node) -> tuple[Value, ...]:
    """the seven matrices = sums of the quarters of one"""
    make = {name: REGISTRY[name] for name in ("concat", "pad", "reshape", "slice", "sub", "transpose")}
    (w,), a = node.inputs, node.attrs
    (k, n), (pairs, _, half, columns) = _sizes(w.tensor), node.outputs[0].tensor.static_shape
    if w.rank == 4:
        w = make["transpose"](make["reshape"](w, shape=(n, k)), perm=(1, 0))
    room = (a["channels"] - k, 2 * columns * pairs - n)
    padded = make["pad"](w, np.zeros((), w.dtype.numpy), low=(0, 0), high=room)
    quarters = make["transpose"](make["reshape"](padded, shape=(2, half, pairs, 2, columns)), perm=(0, 3, 2, 1, 4))

    def quarter(i: int, j: int) -> Value:
        part = make["slice"](
            quarters, starts=(i, j, 0, 0, 0), stops=(i + 1, j + 1, pairs, half, columns), steps=(1,) * 5
        )
        result: Value = make["reshape"](part, shape=(pairs, 1, half, columns))
        return result

    b11, b12, b21, b22 = quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)
    t1 = make["sub"](b12, b11)
    t2 = make["sub"](b22, t1)
    read = [b11, b21, b22, make["sub"](t2, b21), t1, t2, make["sub"](b22, b12), *([b12] if a["guarded"] else [])]
    return (make["concat"](*read, axis=1),)


_W = np.linspace(-1, 1, 6 * 5, dtype=np.float32).reshape(6, 5)

pack_strassen_weights = register(
    OpSpec(
        name="pack_strassen_weights",
        kind=Kind.ANCHOR,
        summary="A right operand [K, N], or the weights [N, K, 1, 1] of a pointwise convolution, as the seven matrices of "
        "Strassen's algorithm for each pair of panels; zero padded.",
        infer=_pack_type,
        reference=_pack_reference,
        decompose=_pack_decompose,
        packs=True,
        made_by_passes=True,
        samples=lambda: [
            Sample((_W,), {"columns": 2, "channels": 6, "guarded": False}),
            Sample((_W,), {"columns": 4, "channels": 8, "guarded": True}),
            Sample((_W.reshape(6, 5, 1, 1),), {"columns": 2, "channels": 8, "guarded": False}),
        ],
    )
)

# ----------------------------------------------------------------------------------------------------------- products


def _multiply(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """a[..., M, K] times a packed operand: its columns, padding included, by the algorithm's seven products."""
    pairs, _, half, _ = w.shape
    a = np.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, a.shape[-2] % 2), (0, 2 * half - a.shape[-1])])
    rows = a.shape[-2] // 2
    a11, a12, a21, a22 = (a[..., i : i + rows, j : j + half] for i in (0, rows) for j in (0, half))
    s1 = a21 + a22
    s2 = s1 - a11
    left = (a11, a12, a12 - s2, a22, s1, s2, a11 - a21)
    # [pairs, ..., rows, columns]
    p1, p2, p3, p4, p5, p6, p7 = (np.stack([x @ w[pair, i] for pair in range(pairs)]) for i, x in enumerate(left))
    u = p1 + p6
    top = np.concatenate([p1 + p2, u + p5 + p3], axis=-1)
    bottom = np.concatenate([u + p7 - p4, u + p7 + p5], axis=-1)
    return np.concatenate(list(np.concatenate([top, bottom], axis=-2)), axis=-1)


def _dot_type(a: TensorType, w: TensorType, *, columns_total: int) -> TensorType:
    a, w = tensor_operand("dot_strassen", 0, a), tensor_operand("dot_strassen", 1, w)
    expect(
        a.rank >= 2 and w.rank == 4, f"dot_strassen: operands are {a} and {w}; a matrix and packed panels are needed"
    )
    expect(a.dtype == w.dtype, f"dot_strassen: operand 1 is {w.dtype} but operand 0 is {a.dtype}")
    pairs, _, half, columns = w.static_shape
    expect(half < a.static_shape[-1] <= 2 * half, f"dot_strassen: operand 0 is {a} but operand 1 holds {2 * half} rows")
    expect(pairs == ceil_div(columns_total, 2 * columns), f"dot_strassen: {w} does not hold {columns_total} columns")
    return a.with_shape((*a.shape[:-1], columns_total))


dot_strassen = register(
    OpSpec(
        name="dot_strassen",
        kind=Kind.ANCHOR,
        summary="Matrix product of a[..., M, K] and an operand packed by pack_strassen_weights.",
        infer=_dot_type,
        reference=lambda a, w, *, columns_total: np.ascontiguousarray(
            _multiply(a, w)[..., : a.shape[-2], :columns_total]
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
                        np.linspace(0, 1, 64 * n, dtype=t).reshape(64, n), columns=32, channels=64, guarded=True
                    ),
                ),
                {"columns_total": n},
            )
            for m, n, t in ((1, 5, np.float32), (13, 32, np.float32), (30, 67, np.float64))
        ],
    )
)


def _conv_type(x: TensorType, w: TensorType, *, filters: int, lanes: int) -> TensorType:
    x, w = tensor_operand("conv_strassen", 0, x), tensor_operand("conv_strassen", 1, w)
    expect(x.rank == 5, f"conv_strassen: operand 0 is {x}; [N, blocks, H, W, block] is needed")
    expect(w.rank == 4, f"conv_strassen: operand 1 is {w}; weights packed by pack_strassen_weights are needed")
    expect(x.dtype == w.dtype, f"conv_strassen: operand 1 is {w.dtype} but operand 0 is {x.dtype}")
    pairs, _, half, columns = w.static_shape
    channels = x.static_shape[1] * x.static_shape[4]
    expect(half < channels <= 2 * half, f"conv_strassen: {x} does not go with weights {w}")
    expect(pairs == ceil_div(filters, 2 * columns), f"conv_strassen: {w} does not hold {filters} filters")
    return x.with_shape((x.shape[0], ceil_div(filters, lanes), *x.shape[2:4], lanes))


def _conv_reference(x: np.ndarray, w: np.ndarray, *, filters: int, lanes: int) -> np.ndarray:
    n, blocks, high, wide, size = x.shape
    rows = x.transpose(0, 2, 3, 1, 4).reshape(n, high * wide, blocks * size)
    out = ceil_div(filters, lanes)
    y = np.zeros((n, high * wide, out * lanes), x.dtype)
    y[..., :filters] = _multiply(rows, w)[:, : high * wide, :filters]
    return np.ascontiguousarray(y.reshape(n, high, wide, out, lanes).transpose(0, 3, 1, 2, 4))


def _conv_samples() -> Iterable[Sample]:
    for n, high, wide, filters in ((1, 3, 5, 8), (2, 4, 4, 21)):
        x = np.linspace(-1, 1, n * 4 * high * wide * 8, dtype=np.float32).reshape(n, 4, high, wide, 8)
        w = np.linspace(0, 1, filters * 32, dtype=np.float32).reshape(filters, 32, 1, 1)
        yield Sample((x, _pack_reference(w, columns=16, channels=32, guarded=False)), {"filters": filters, "lanes": 8})


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
