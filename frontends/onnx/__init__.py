"""ONNX models as graphs: `load_model` reads and checks a file, `import_model` makes the graph for types of inputs."""

from graphc.errors import NeedsValue
from graphc.frontends.onnx.importer import check_operators, import_model
from graphc.frontends.onnx.inputs import argument_type, input_types, signature
from graphc.frontends.onnx.loader import OnnxModel, external_files, load_model

__all__ = [
    "NeedsValue",
    "OnnxModel",
    "argument_type",
    "check_operators",
    "external_files",
    "import_model",
    "input_types",
    "load_model",
    "signature",
]
