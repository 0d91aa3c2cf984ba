"""Attention as one operation: what the attention pass makes of two products with a softmax between them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.linalg import exact
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["attention"]


def _type(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    *mask: TensorType,
    scale: float,
    fill: bool = False,
    no_nan: bool = False,
    heads_last: bool = False,
) -> TensorType:
    for number, t in enumerate((q, k, v, *mask)):
        tensor_operand("attention", number, t)
    for name, t in zip("qkv", (q, k, v), strict=True):
        expect(t.rank == q.rank and 2 <= t.rank <= 4, f"attention: {name} is {t}; all need the same rank, 2 to 4")
        expect(t.dtype == q.dtype and t.dtype.is_float, f"attention: {name} is {t}; all need the same float type")
        expect(t.shape[:-2] == q.shape[:-2], f"attention: leading dimensions of q, {q}, and {name}, {t}, differ")
    expect(q.shape[-1] == k.shape[-1], f"attention: q is {q} and k is {k}; their last dimensions must agree")
    expect(k.shape[-2] == v.shape[-2], f"attention: k is {k} and v is {v}; they need as many rows")
    scores = (*q.shape[:-1], k.shape[-2])
    for m in mask:
        expect(m.shape == scores and m.dtype == q.dtype, f"attention: the mask is {m}; {q.dtype} of {scores} is needed")
    expect(len(mask) <= 1, "attention: it takes q, k, v and at most one mask")
    expect(bool(mask) or not fill, "attention: there is no mask to fill from")
    expect(not heads_last or q.rank == 4, f"attention: heads_last is for four dimensions, q is {q}")
    *batch, rows, columns = (*q.shape[:-1], v.shape[-1])
    shape = (batch[0], rows, batch[1], columns) if heads_last else (*batch, rows, columns)
    return q.with_shape(shape)


def _reference(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *mask: np.ndarray,
    scale: float,
    fill: bool = False,
    no_nan: bool = False,
    heads_last: bool = False,
) -> np.ndarray:
    with np.errstate(all="ignore"):
        scores = exact(q) @ np.swapaxes(exact(k), -1, -2) * scale
        for m in mask:
            scores = np.where(m != 0, m, scores) if fill else scores + m
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        if no_nan:
            weights = np.where(np.isnan(weights), 0, weights)
        y = (weights @ exact(v)).astype(q.dtype)
    return np.ascontiguousarray(y.transpose(0, 2, 1, 3)) if heads_last else y


def _samples() -> Iterable[Sample]:
    draw = np.random.default_rng(0).standard_normal
    for dtype in (np.float32, np.float64):
        for batch, rows, keys, inner, outer in (
            ((), 1, 5, 3, 2),
            ((2,), 13, 40, 16, 16),
            ((2, 3), 30, 17, 8, 33),
            ((1, 2), 3, 100, 20, 70),
        ):
            q, k, v = (draw((*batch, *shape)).astype(dtype) for shape in ((rows, inner), (keys, inner), (keys, outer)))
            yield Sample((q, k, v), {"scale": inner**-0.5})
    q, k, v = (draw((2, 3, n, 16)).astype(np.float32) for n in (21, 37, 37))
    mask = np.where(draw((2, 3, 21, 37)) > 0, 0, -np.inf).astype(np.float32)
    mask[0, 0, 4] = -np.inf
    yield Sample((q, k, v, mask), {"scale": 0.25, "no_nan": True})
    yield Sample((q, k, v, mask), {"scale": 0.25})
    yield Sample((q, k, v, np.maximum(mask, np.float32(-1e9))), {"scale": 1.0, "fill": True, "heads_last": True})
    yield Sample((q, k, v, draw(mask.shape).astype(np.float32)), {"scale": -2.0, "heads_last": True})


attention = register(
    OpSpec(
        name="attention",
        kind=Kind.ANCHOR,
        template="attention",
        writes_strided=True,
        summary="softmax(q[..., M, D] k[..., N, D]^T * scale + mask[..., M, N]) v[..., N, E]: [..., M, E]. `fill`: where the "
        "mask is not 0 it takes the place of the score; `no_nan`: weights that are NaN are 0 (a row of which everything is "
        "masked); `heads_last`: [B, H, ...] give [B, M, H, E].",
        infer=_type,
        reference=_reference,
        made_by_passes=True,
        no_gradient="attention is found after differentiation",
        samples=_samples,
    )
)
