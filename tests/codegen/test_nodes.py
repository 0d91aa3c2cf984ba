"""Every operation that becomes a loop nest gives what its reference gives, on the registry's own samples."""

from __future__ import annotations

import numpy as np
import pytest
from nests import node_of, run_node

from graphc.ir.dtypes import dtype_of
from graphc.ir.interpret import run_node as interpret_node
from graphc.ops import REGISTRY
from graphc.ops.spec import Kind, Sample

_KINDS = (Kind.ELEMENTWISE, Kind.INJECTIVE, Kind.REDUCE)
_NO_KERNEL = (
    "string",
    "complex64",
    "complex128",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn",
)
SAMPLES = [(name, k) for name, spec in REGISTRY.items() if spec.kind in _KINDS for k, _ in enumerate(spec.samples())]


def tolerance(dtype: np.dtype) -> dict[str, float]:
    """What rounding differently may cost in an element type."""
    name = dtype_of(dtype).name
    relative = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-13}.get(name, 0.0)
    return {"rtol": relative, "atol": relative}


def assert_agree(got: np.ndarray, expected: np.ndarray) -> None:
    wide = np.float64 if dtype_of(expected).is_float else expected.dtype
    np.testing.assert_allclose(got.astype(wide), expected.astype(wide), **tolerance(expected.dtype))


@pytest.mark.parametrize(("name", "k"), SAMPLES, ids=lambda v: str(v))
def test_sample(name: str, k: int) -> None:
    spec = REGISTRY[name]
    sample: Sample = list(spec.samples())[k]
    arrays = [np.asarray(a) for a in sample.operands]
    node = node_of(spec, *arrays, **sample.attrs)
    types = [v.tensor for v in (*node.inputs, *node.outputs)]
    if any(t.dtype.name in _NO_KERNEL for t in types):
        pytest.skip("an element type without kernels")
    if len({a.shape for a in arrays}) > 1 and spec.kind is Kind.ELEMENTWISE:
        pytest.skip("the node is made of broadcast operands")
    before = [a.copy() for a in arrays]
    expected = interpret_node(node, tuple(arrays), {})
    got = run_node(node, *arrays)
    for g, e in zip(got, expected, strict=True):
        assert_agree(g, np.asarray(e))
    for a, b in zip(arrays, before, strict=True):
        assert a.tobytes() == b.tobytes(), "an operand was overwritten"
