"""Elementwise operations: arithmetic, comparisons, logic, transcendental functions, casts and selection.

All operands have one shape (calling an operation broadcasts them first); element types must agree. Each entry gives
the NumPy reference and the scalar expression that kernels compute; both follow ONNX where NumPy and ONNX differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphc.ir import scalar as s
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

BOOL = dtype_of("bool")


def _same(name: str, accepts: str) -> Callable[..., TensorType]:
    """Inference for operands of one type: `accepts` lists the kinds of element types allowed."""

    def infer(*types: TensorType, **attrs: Any) -> TensorType:
        first = types[0]
        for k, t in enumerate(types):
            expect(isinstance(t, TensorType), f"{name}: operand {k} is {t}, a tensor is needed")
            expect(t.shape == first.shape, f"{name}: operand {k} has shape {t.shape} but operand 0 has {first.shape}")
            expect(t.dtype == first.dtype, f"{name}: operand {k} is {t.dtype} but operand 0 is {first.dtype}; cast one of them")
            expect(t.dtype.kind in accepts.split(), f"{name}: operand {k} is {t.dtype}; {name} takes {accepts} types")
        return first

    return infer


def _predicate(name: str, accepts: str) -> Callable[..., TensorType]:
    same = _same(name, accepts)
    return lambda *types, **attrs: same(*types, **attrs).with_dtype(BOOL)


_GRID = np.array([-2.5, -1.0, -0.5, -0.0, 0.25, 0.5, 1.0, 3.0], np.float32)
_UNIT = np.array([-0.99, -0.5, -0.0, 0.0, 0.1, 0.5, 0.75, 0.99], np.float32)
_POSITIVE = np.array([1e-6, 0.1, 0.5, 1.0, 1.5, 3.0, 10.0, 1e6], np.float32)
_INTS = np.array([-7, -2, -1, 0, 1, 2, 3, 100], np.int64)
_BOOLS = np.array([True, False, True, False])
NUMERIC = "float int uint complex"


def unary(
    name: str,
    reference: Callable[..., Any],
    *,
    accepts: str = "float",
    scalar: Callable[..., Scalar] | None = None,
    grid: np.ndarray = _GRID,
    predicate: bool = False,
    summary: str = "",
) -> OpSpec:
    """Register an operation of one operand; the scalar operation has the same name unless given."""
    return register(
        OpSpec(
            name=name,
            kind=Kind.ELEMENTWISE,
            summary=summary,
            infer=(_predicate if predicate else _same)(name, accepts),
            reference=reference,
            scalar=scalar or (lambda x: s.scalar(name, x)),
            promote=True,
            samples=lambda: [Sample((grid,)), Sample((grid.reshape(2, -1).astype(np.float64 if grid.dtype.kind == "f" else grid.dtype),))],
        )
    )


def binary(
    name: str,
    reference: Callable[..., Any],
    *,
    accepts: str = NUMERIC,
    scalar: Callable[..., Scalar] | None = None,
    predicate: bool = False,
    samples: Callable[[], Iterable[Sample]] | None = None,
    summary: str = "",
) -> OpSpec:
    """Register an operation of two operands of one type."""

    def default_samples() -> Iterable[Sample]:
        kinds = accepts.split()
        if "float" in kinds:
            yield Sample((_GRID, _GRID[::-1].copy()))
            yield Sample((_GRID.astype(np.float64), np.abs(_GRID[::-1]).astype(np.float64) + 0.5))
        if "int" in kinds:
            yield Sample((_INTS, np.array([3, 2, 5, 1, 7, -2, -3, 9], np.int64)))
        if "bool" in kinds:
            yield Sample((_BOOLS, np.array([True, True, False, False])))

    return register(
        OpSpec(
            name=name,
            kind=Kind.ELEMENTWISE,
            summary=summary,
            infer=(_predicate if predicate else _same)(name, accepts),
            reference=reference,
            scalar=scalar or (lambda x, y: s.scalar(name, x, y)),
            promote=True,
            samples=samples or default_samples,
        )
    )


def _truncated_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Division; integers round towards zero (ONNX, C), where NumPy's // rounds down. Division by zero gives 0."""
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    with np.errstate(divide="ignore"):
        q = np.floor_divide(x, y)
        return np.where((y != 0) & (np.fmod(x, y) != 0) & ((x < 0) != (y < 0)), q + 1, q).astype(x.dtype)


add = binary("add", np.add)
sub = binary("sub", np.subtract)
mul = binary("mul", np.multiply)
div = binary("div", _truncated_divide, summary="Quotient; integers round towards zero and x/0 is 0.")
