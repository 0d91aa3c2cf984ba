"""External tensor data, read as if the model came from a stranger.

A model names a file, an offset and a length. A hostile one names somebody else's file (`graphc.frontends.beneath` opens
none of those), or a range that is not the tensor's.

Sources: onnx `docs/ExternalDataSecurity.md`; CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, -34446, -34447.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from onnx import TensorProto

from graphc.errors import ModelError, UnsafeModelError
from graphc.frontends.beneath import open_beneath

__all__ = ["is_external", "location_of", "read_external"]

#: tensors up to this many bytes are read, larger ones are mapped into memory and paged in on use
_MAP_FROM = 1 << 16


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's bytes lie in another file (or claim to)."""
    return tensor.data_location == TensorProto.EXTERNAL or bool(tensor.external_data)


def location_of(tensor: TensorProto) -> str:
    """The file that the tensor names, as it is written in the model."""
    return {e.key: e.value for e in tensor.external_data}.get("location", "")


def read_external(tensor: TensorProto, folder: Path | None, nbytes: int) -> np.ndarray:
    """The tensor's bytes as a read-only uint8 array of exactly `nbytes` elements.

    `folder` is the only folder that may be read, None when the model did not come from a file. Raises UnsafeModelError
    for a location that leaves the folder or passes a link, ModelError for a missing file or a range that does not fit.
    """
    what = f"external data of tensor {tensor.name!r}"
    entries = {e.key: e.value for e in tensor.external_data}
    location = location_of(tensor)
    if folder is None:
        raise UnsafeModelError(
            f"{what} lies in the file {location!r}, but the model was not loaded from a file, "
            "so there is no folder to look in; load the model by its path"
        )
    offset = _number(entries.get("offset", "0"), "offset", what)
    length = _number(entries["length"], "length", what) if "length" in entries else nbytes
    if length != nbytes:
        raise ModelError(f"{what}: its length is {length} bytes but its shape and element type need {nbytes}")
    descriptor = open_beneath(folder, location, what)
    try:
        size = os.fstat(descriptor).st_size
        if offset + length > size:
            raise ModelError(
                f"{what}: bytes {offset} to {offset + length} lie outside the file {location!r} of {size} bytes"
            )
        return _read(descriptor, offset, length, what)
    finally:
        os.close(descriptor)


def _number(text: str, key: str, what: str) -> int:
    # 20 digits hold any 64-bit offset; a longer number only costs time to parse
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ModelError(f"{what}: the {key} {text[:40]!r} is not a count of bytes")
    return int(text)


def _read(descriptor: int, offset: int, length: int, what: str) -> np.ndarray:
    if length >= _MAP_FROM:
        page = offset - offset % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(descriptor, offset - page + length, access=mmap.ACCESS_READ, offset=page)
        return np.frombuffer(mapped, np.uint8, length, offset - page)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise ModelError(f"{what}: the file ended after {len(data)} of {length} bytes")
    return np.frombuffer(data, np.uint8)
