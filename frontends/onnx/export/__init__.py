"""Graphs as ONNX models: imported, traced or differentiated, any graph before passes.

`to_onnx` makes the model, `save` writes it. The exporters of the operations stand in `operators`, a family a file.
"""

from graphc.frontends.onnx.export.file import save
from graphc.frontends.onnx.export.model import to_onnx

__all__ = ["save", "to_onnx"]
