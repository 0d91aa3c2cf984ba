"""Opening a file that a stranger's model names: beneath the model's folder, through no link.

A hostile model names somebody else's file: through `..`, an absolute path, a symbolic link in any component, a hard
link, or a device. Every component is opened relative to the one before it without following links, so that nothing can
be swapped between the check and the use.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from graphc.errors import ModelError, UnsafeModelError

__all__ = ["open_beneath"]


def open_beneath(folder: Path, location: str, what: str) -> int:
    """A descriptor, for reading, of the regular, singly linked file at `location` below `folder`.

    Raises UnsafeModelError for a location that leaves the folder or passes a link, ModelError for a missing file; `what`
    says in messages whose file it is.
    """
    return _open_beneath(folder, _components(location, what), what)


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
