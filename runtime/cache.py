"""Compiled kernels (and other derived bytes) kept on disk between processes.

A store of byte strings under hexadecimal keys that name their content completely, so an entry is never stale, only
absent. What it promises, because object code from it is executed:

- The directory belongs to this user alone. One that others own or can write to is refused, with one warning.
- A file is read back whole or not at all: it opens with the length and sha256 of what follows; a file that does not
  match is deleted and counts as absent.
- A write is a private temporary file renamed into place: a reader, another process or Ctrl-C never meets half a file.
- Its size is bounded; entries not used for longest go first.
- Nothing is unpickled. A full, read-only or missing disk costs speed, not correctness.

The directory is $GRAPHC_CACHE, else the platform's own place for caches ($XDG_CACHE_HOME/graphc, ~/.cache/graphc,
~/Library/Caches/graphc); GRAPHC_CACHE=off works without. GRAPHC_CACHE_MB bounds its size (default 512).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

from graphc.errors import CacheError, OptionError

__all__ = ["Cache", "default_cache", "default_directory"]

_MAGIC = b"graphc cache 1\n"
_HEADER = len(_MAGIC) + 8 + 32  # magic, length, sha256
_DEFAULT_MB = 512
_ABANDONED_S = 3600.0  # a temporary file this old has lost its writer
_TOUCH_S = 3600.0  # how exact "least recently used" is: one write to the inode an hour at most


class Cache:
    """Byte strings under keys, in one directory.

    Any number of threads and processes may use one directory at once. After trouble with the disk the cache warns once
    and then answers every `get` with None.

    Args:
        directory: where to keep entries; made, for this user only, when it does not exist. None: keep nothing.
        limit_bytes: total size to stay under; passed for a moment between a write and the next sweep.
        strict: raise CacheError when the directory cannot be used, in place of warning.
    """

    def __init__(self, directory: Path | None, limit_bytes: int = _DEFAULT_MB << 20, *, strict: bool = False) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._written: int | None = None  # bytes here since the last sweep; None: not swept yet
        if directory is None:
            return
        problem = _prepare(directory)
        if problem and strict:
            raise CacheError(f"the cache directory {directory} cannot be used: {problem}")
        if problem:
            self._give_up(problem)

    def get(self, key: str) -> bytes | None:
        """The bytes stored under `key`, or None when there are none that are whole."""
        path = self._path(key)
        if path is None:
            return None
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        payload = _unwrap(raw)
        if payload is None:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self._touch(path)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Store `payload` under `key`; an entry already there is replaced. Trouble with the disk is a warning."""
        path = self._path(key)
        if path is None:
            return
        try:
            _write_whole(path, _MAGIC + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return
        with self._lock:
            if self._written is not None:
                self._written += _HEADER + len(payload)
            if self._written is None or self._written > self.limit_bytes // 8:
                self._written = 0
                self._sweep()

    def size(self) -> tuple[int, int]:
        """(entries, bytes) now on disk."""
        files = _entries(self.directory)
        return len(files), sum(size for _, size, _ in files)

    def clear(self) -> None:
        """Remove every entry; the directory stays."""
        for _, _, path in _entries(self.directory):
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, key: str) -> Path | None:
        if not (len(key) >= 8 and key.isalnum() and key.isascii()):
            raise ValueError(f"a cache key is letters and digits, at least 8: {key!r}")
        return self.directory / key[:2] / key[2:] if self.directory is not None else None

    def _touch(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _TOUCH_S:
                os.utime(path)

    def _sweep(self) -> None:
        """Remove abandoned temporary files, then the least recently used entries down to 7/8 of the limit."""
        files = sorted(_entries(self.directory, abandoned=True))
        total = sum(size for _, size, _ in files)
        if total <= self.limit_bytes:
            return
        for _, size, path in files:
            if total <= self.limit_bytes * 7 // 8:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size

    def _give_up(self, problem: str) -> None:
        warnings.warn(
            f"graphc keeps no compiled kernels in {self.directory}: {problem}. Models compile again in every process; "
            "set GRAPHC_CACHE to a directory of yours, or to 'off' to silence this.",
            RuntimeWarning,
            stacklevel=3,
        )
        self.directory = None


def default_directory() -> Path | None:
    """Where the cache is for this user and environment; None when it is switched off."""
    chosen = os.environ.get("GRAPHC_CACHE")
    if chosen is not None and chosen.strip().lower() in ("", "0", "off", "none"):
        return None
    if chosen is not None:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification says to ignore a relative path
        return Path(base) / "graphc"
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as in some containers
        return None
    return home / "Library" / "Caches" / "graphc" if sys.platform == "darwin" else home / ".cache" / "graphc"


def default_cache() -> Cache:
    """The process's cache in `default_directory()`; one object per directory, so that it warns once."""
    directory = default_directory()
    with _default_lock:
        if directory not in _defaults:
            _defaults[directory] = Cache(directory, _limit_from_environment())
        return _defaults[directory]


_default_lock = threading.Lock()
_defaults: dict[Path | None, Cache] = {}


def _limit_from_environment() -> int:
    text = os.environ.get("GRAPHC_CACHE_MB", str(_DEFAULT_MB))
    try:
        megabytes = int(text)
    except ValueError:
        megabytes = 0
    if megabytes < 1:
        raise OptionError(f"GRAPHC_CACHE_MB is {text!r}; it takes a whole number of megabytes, at least 1")
    return megabytes << 20


def _prepare(directory: Path) -> str | None:
    """Make the directory if need be; what is wrong with it, or None."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory"
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            return f"it belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}"
        if status.st_mode & 0o022:
            return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o}); chmod 700 would make it private"
    return None if os.access(directory, os.R_OK | os.W_OK | os.X_OK) else "it cannot be written to"


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="tmp-", dir=path.parent)  # mode 0600, a name nobody else has
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _unwrap(raw: bytes) -> bytes | None:
    payload = raw[_HEADER:]
    head = _MAGIC + len(payload).to_bytes(8, "little")
    whole = raw.startswith(head) and raw[len(head) : _HEADER] == hashlib.sha256(payload).digest()
    return payload if whole else None


def _entries(directory: Path | None, *, abandoned: bool = False) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of every entry; with `abandoned`, old temporary files are removed on the way."""
    found: list[tuple[float, int, Path]] = []
    if directory is None:
        return found
    for path in directory.glob("??/*"):
        try:
            status = path.stat()
            if not path.name.startswith("tmp-"):
                found.append((status.st_mtime, status.st_size, path))
            elif abandoned and time.time() - status.st_mtime > _ABANDONED_S:
                path.unlink()
        except OSError:  # another process was faster
            continue
    return found
