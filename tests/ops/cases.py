"""The cases that the generated tests run over: every sample of every operation in the registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc.ir.dtypes import dtype_of
from graphc.ir.types import SequenceType, TensorType, Type
from graphc.ops import REGISTRY, OpSpec, Sample, has_kernel
from graphc.ops.typing import join


def type_of(data: Any) -> Type:
    """The type of an operand: an array's, or for a list the sequence's."""
    if isinstance(data, list):
        return SequenceType(reduce(lambda a, b: join(a, b, "sample"), map(type_of, data)))
    return TensorType(dtype_of(np.asarray(data)), np.shape(data))


def operands_of(sample: Sample) -> list[Any]:
    return [o if isinstance(o, list) else np.asarray(o) for o in sample.operands]


def results_of(spec: OpSpec, sample: Sample) -> list[Any]:
    assert spec.reference is not None
    results = spec.reference(*operands_of(sample), **sample.attrs)
    results = results if isinstance(results, tuple) else (results,)
    return [r if r is None or isinstance(r, list) else np.asarray(r) for r in results]


def samples(select: Callable[[OpSpec], bool] = lambda spec: True, *, kernels_only: bool = False) -> list[Any]:
    """pytest parameters (spec, sample); `kernels_only` leaves out element types that no kernel computes with."""
    found = []
    for name, spec in REGISTRY.items():
        for k, sample in enumerate(spec.samples() if select(spec) else ()):
            arrays = [*operands_of(sample), *(results_of(spec, sample) if kernels_only else [])]
            if kernels_only and not all(isinstance(a, np.ndarray) and has_kernel(dtype_of(a)) for a in arrays):
                continue
            found.append(pytest.param(spec, sample, id=f"{name}-{k}"))
    return found


#: how far a kernel's arithmetic may be from the reference's: (relative, absolute)
TOLERANCES = {
    np.dtype(ml_dtypes.bfloat16): (1.6e-2, 1e-2),
    np.dtype(np.float16): (2e-3, 2e-3),
    np.dtype(np.float32): (2e-6, 1e-6),
    np.dtype(np.float64): (1e-13, 1e-13),
}


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal types and shapes; floats within the tolerance of their type, everything else exact."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype in TOLERANCES:
        relative, absolute = TOLERANCES[expected.dtype]
        wide = np.float64
        np.testing.assert_allclose(actual.astype(wide), expected.astype(wide), rtol=relative, atol=absolute)
    else:
        np.testing.assert_array_equal(actual, expected)
