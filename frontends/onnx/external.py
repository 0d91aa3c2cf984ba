"""External tensor data, read as if the model came from a stranger.

A model names a file, an offset and a length. A hostile one names somebody else's file: through `..`, an absolute path,
a symbolic link in any component, a hard link, a device, or a range that is not the tensor's. Every component is opened
relative to the one before it without following links, so that nothing can be swapped between the check and the use.

Sources: onnx `docs/ExternalDataSecurity.md`; CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, -34446, -34447.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from onnx import TensorProto

from graphc.errors import ModelError, UnsafeModelError

__all__ = ["is_external", "read_external"]

#: tensors up to this many bytes are read, larger ones are mapped into memory and paged in on use
_MAP_FROM = 1 << 16


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's bytes lie in another file (or claim to)."""
    return tensor.data_location == TensorProto.EXTERNAL or bool(tensor.external_data)


def read_external(tensor: TensorProto, folder: Path | None, nbytes: int) -> np.ndarray:
    """The tensor's bytes as a read-only uint8 array of exactly `nbytes` elements.

    `folder` is the only folder that may be read, None when the model did not come from a file. Raises UnsafeModelError
    for a location that leaves the folder or passes a link, ModelError for a missing file or a range that does not fit.
    """
    what = f"external data of tensor {tensor.name!r}"
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise UnsafeModelError(
            f"{what} lies in the file {location!r}, but the model was not loaded from a file, "
            "so there is no folder to look in; load the model by its path"
        )
    parts = _components(location, what)
    offset = _number(entries.get("offset", "0"), "offset", what)
    length = _number(entries["length"], "length", what) if "length" in entries else nbytes
    if length != nbytes:
        raise ModelError(f"{what}: its length is {length} bytes but its shape and element type need {nbytes}")
    descriptor = _open_beneath(folder, parts, what)
    try:
        size = os.fstat(descriptor).st_size
        if offset + length > size:
            raise ModelError(
                f"{what}: bytes {offset} to {offset + length} lie outside the file {location!r} of {size} bytes"
            )
        return _read(descriptor, offset, length, what)
    finally:
        os.close(descriptor)


def _components(location: str, what: str) -> tuple[str, ...]:
    """The parts of a relative location that stays inside its folder."""
    if not location or "\0" in location:
        raise UnsafeModelError(f"{what}: {location!r} is not a file name")
    windows = PureWindowsPath(location)
    if PurePosixPath(location).is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        raise UnsafeModelError(f"{what}: the location {location!r} is absolute; it must lie in the model's folder")
    parts = PurePosixPath(location).parts if os.sep == "/" else windows.parts
    if ".." in parts or ".." in windows.parts:
        raise UnsafeModelError(f"{what}: the location {location!r} leaves the model's folder")
    if not parts:
        raise UnsafeModelError(f"{what}: {location!r} is not a file name")
    return parts


def _number(text: str, key: str, what: str) -> int:
    # 20 digits hold any 64-bit offset; a longer number only costs time to parse
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ModelError(f"{what}: the {key} {text[:40]!r} is not a count of bytes")
    return int(text)


def _open_beneath(folder: Path, parts: tuple[str, ...], what: str) -> int:
    """A descriptor of the regular, singly linked file at `parts` below `folder`, reached through no link."""
    shown = "/".join(parts)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # opening a FIFO must not wait for its writer
    try:
        if os.open in os.supports_dir_fd:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            for k, part in enumerate(parts):
                last = k == len(parts) - 1
                try:
                    below = os.open(part, flags if last else flags | os.O_DIRECTORY, dir_fd=descriptor)
                except OSError:
                    if stat.S_ISLNK(os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode):
                        raise UnsafeModelError(f"{what}: {part!r} in {shown!r} is a symbolic link") from None
                    raise
                finally:
                    os.close(descriptor)
                descriptor = below
        else:  # no openat here (Windows): check every component, then open
            path = folder
            for part in parts:
                path = path / part
                if path.is_symlink() or getattr(os.path, "isjunction", lambda p: False)(path):
                    raise UnsafeModelError(f"{what}: {part!r} in {shown!r} is a symbolic link")
            descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise ModelError(f"{what}: the file {shown!r} is missing in {str(folder)!r}") from None
    except OSError as e:
        raise ModelError(f"{what}: the file {shown!r} cannot be opened: {e.strerror}") from None
    status = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = "is not a regular file"
    elif status.st_nlink != 1:
        problem = f"has {status.st_nlink} hard links, so it may be somebody else's file; copy it"
    if problem:
        os.close(descriptor)
        raise UnsafeModelError(f"{what}: {shown!r} {problem}")
    return descriptor


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
