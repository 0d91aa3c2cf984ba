"""An ONNX backend that imports a model and interprets the graph: without kernels, a failure is the frontend's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from graphc.frontends.onnx import NeedsValue, OnnxModel, argument_type, import_model, input_types, load_model
from graphc.ir.interpret import run


def import_for(model: OnnxModel, arguments: Mapping[str, Any]) -> Any:
    """The graph for these arguments; values that types depend on are taken from them."""
    shapes = {name: argument_type(arguments[name], t) for name, t in input_types(model).items() if name in arguments}
    values: dict[str, np.ndarray] = {}
    while True:
        try:
            return import_model(model, shapes, values)
        except NeedsValue as request:
            if values.keys() >= set(request.names):
                raise
            values |= {name: arguments[name] for name in request.names}


class Prepared:
    """A loaded model; it is imported for each call's arguments."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = load_model(model)

    def run(self, inputs: Sequence[Any] | Mapping[str, Any], **_: Any) -> tuple[Any, ...]:
        if not isinstance(inputs, Mapping):
            inputs = dict(zip(input_types(self.model), inputs, strict=True))
        graph = import_for(self.model, inputs)
        return run(graph, *(inputs[name] for name in graph.input_names))


def prepare(model: onnx.ModelProto, device: str = "CPU", **_: Any) -> Prepared:
    return Prepared(model)


def run_model(model: onnx.ModelProto, inputs: Any, device: str = "CPU", **_: Any) -> tuple[Any, ...]:
    return Prepared(model).run(inputs)


def supports_device(device: str) -> bool:
    return device == "CPU"


def is_compatible(model: onnx.ModelProto, device: str = "CPU", **_: Any) -> bool:
    return True
