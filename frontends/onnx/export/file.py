"""Writing a model file: whole or not at all, with external data where protobuf's limit of 2 GB demands it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto

from graphc.errors import InputError

__all__ = ["save"]

#: protobuf messages have 32-bit signed lengths; what is not tensors is far below the difference
_LARGEST = (1 << 31) - (1 << 24)


def save(model: ModelProto, path: str | os.PathLike[str], *, limit: int = _LARGEST) -> None:
    """Write the model to `path`; tensors that would take it beyond `limit` bytes lie in `path` + ".data".

    A file that is there is replaced, at once, when the new one is complete. Raises InputError when `path` is a folder
    or lies in none.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a model is saved as a file")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to save {path.name} in")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        beside = f"{path.name}.data"
        if sum(len(t.raw_data) for t in model.graph.initializer) > limit:
            copy = ModelProto()  # saving turns the tensors into references, and the caller's stay as they are
            copy.CopyFrom(model)
            onnx.save_model(
                copy,
                draft,
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                location=beside,
                size_threshold=1024,
            )
        else:
            onnx.save_model(model, draft)
        if (Path(folder) / beside).exists():
            os.replace(Path(folder) / beside, path.with_name(beside))
        os.replace(draft, path)
