"""Saving models: `export` writes a file, `to_onnx` gives the message that would be written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from graphc.errors import ModelError, OptionError
from graphc.ir.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["export", "to_onnx"]


def to_onnx(graph: Graph, name: str = "graphc") -> ModelProto:
    """A graph as an ONNX model; see `graphc.frontends.onnx.export.model.to_onnx`."""
    from graphc.frontends.onnx.export import to_onnx as convert

    return convert(graph, name)


def export(model: Any, path: str | os.PathLike[str], format: str = "onnx") -> None:  # noqa: A002
    """Save a model, whatever `graphc.load` takes, before any pass: a traced or differentiated Graph, a file, a name.

    An existing file is replaced when the new one is complete; weights beyond 2 GB go to `path` + ".data".
    Raises UnsupportedError that lists every node ONNX has nothing for, ModelError for what is no model, InputError
    when `path` is a folder.
    """
    if format != "onnx":
        raise OptionError(f"export: the format is {format!r}; known is 'onnx'")
    from graphc.api import load
    from graphc.runtime.executable import Executable

    if callable(model) and not isinstance(model, Executable):
        name = getattr(model, "__name__", type(model).__name__)
        raise ModelError(
            f"export saves graphs and models, and {name} is a Python function: write "
            "graphc.export(graphc.trace(f, ...), path), with arguments like those it is to be called with, or "
            "graphc.spec(shape, dtype)"
        )
    from graphc.frontends.onnx.export import save

    save(to_onnx(load(model)), path)
