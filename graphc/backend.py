"""The ONNX backend interface (onnx.backend.base): `prepare`, `run_model`, `run_node`, `supports_device`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx.backend.base import Backend, BackendRep

from graphc.api import compile
from graphc.errors import InputError
from graphc.runtime.executable import Executable

__all__ = ["GraphcBackend", "GraphcBackendRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class GraphcBackendRep(BackendRep):  # type: ignore[misc]
    """A prepared model."""

    def __init__(self, executable: Executable) -> None:
        self.executable = executable

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for inputs given in order, by name, or as one array."""
        if isinstance(inputs, dict):
            return tuple(self.executable.run(None, inputs))
        values = list(inputs) if isinstance(inputs, Sequence) and not isinstance(inputs, str) else [inputs]
        names = [p.name for p in self.executable.inputs]
        if len(values) > len(names):
            raise InputError(f"the model takes {len(names)} inputs, {len(values)} were given")
        return tuple(self.executable.run(None, dict(zip(names, values, strict=False))))


class GraphcBackend(Backend):  # type: ignore[misc]
    """graphc as an ONNX backend, for the CPU."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> GraphcBackendRep:
        if not cls.supports_device(device):
            raise InputError(f"device {device!r}: expected 'CPU'")
        return GraphcBackendRep(compile(model, **kwargs))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node on arrays; element types and shapes come from them."""
        import numpy as np
        from onnx import helper

        arrays = [np.asarray(a) for a in inputs]
        names = [n for n in node.input if n]
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, arrays, strict=True)
        ]
        results = [helper.make_empty_tensor_value_info(n) for n in node.output]
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        graph = helper.make_graph([node], "node", infos, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)])
        return cls.run_model(model, dict(zip(names, arrays, strict=True)), device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


is_compatible = GraphcBackend.is_compatible
prepare = GraphcBackend.prepare
run_model = GraphcBackend.run_model
run_node = GraphcBackend.run_node
supports_device = GraphcBackend.supports_device
