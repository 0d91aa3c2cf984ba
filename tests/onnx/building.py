"""Short ways to make ONNX models in tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["check", "info", "model", "one_node"]


def info(name: str, shape: Sequence[int | str | None] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    *,
    initializers: Mapping[str, np.ndarray] | None = None,
    opset: int = 18,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)


def one_node(
    op: str, operands: Sequence[Any], opset: int, outputs: int = 1, constants: Collection[int] = (), **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; float32 arrays are inputs, everything else is a constant, None an absent operand.

    `constants` are positions of operands that are constants all the same.
    """
    names = [f"x{k}" if a is not None else "" for k, a in enumerate(operands)]
    given = [(n, a) for n, a in zip(names, operands, strict=True) if a is not None]
    inputs = [
        n
        for k, (n, a) in enumerate(zip(names, operands, strict=True))
        if n and a.dtype == np.float32 and k not in constants
    ]
    nodes = [helper.make_node(op, names, [f"y{k}" for k in range(outputs)], name="the_node", **attributes)]
    return model(
        nodes,
        [info(n, a.shape) for n, a in given if n in inputs],
        [f"y{k}" for k in range(outputs)],
        initializers={n: a for n, a in given if n not in inputs},
        opset=opset,
    )


def check(proto: onnx.ModelProto, feeds: Mapping[str, Any], expected: Sequence[Any], rtol: float = 1e-5) -> None:
    """The model, imported and interpreted, gives the expected arrays."""
    from interpreting_backend import run_model

    results = run_model(proto, feeds)
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6)
