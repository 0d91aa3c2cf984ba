"""Importers that come from outside: a domain of the user's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphc
from graphc import ops
from graphc.errors import UnsupportedError
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Value


def test_an_importer_may_come_after_the_model_that_lacked_it() -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["y"], domain="com.example.late")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example.late", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets)
    with pytest.raises(UnsupportedError, match="Twice"):
        graphc.compile(model)

    @importer("Twice", 1, domain="com.example.late")
    def twice(context: object, x: Value) -> Value:
        return ops.add(x, x)  # type: ignore[no-any-return]

    np.testing.assert_array_equal(graphc.compile(model)(np.arange(3, dtype=np.float32)), [0, 2, 4])


def test_an_importer_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="versions"):
        importer("Twice", domain="com.example.late")
