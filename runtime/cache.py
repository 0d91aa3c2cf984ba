"""Compiled kernels (and other derived bytes) kept on disk between processes.

A store of byte strings under hexadecimal keys that name their content completely, so an entry is never stale, only
absent. What it promises, because object code from it is executed:

- The directory belongs to this user alone. One that others own or can write to is refused, with one warning.
- A file is read back whole or not at all: it opens with the length and sha256 of what follows; a file that does not
  match is deleted and counts as absent.
- A write is a private temporary file renamed into place: a reader, another process or Ctrl-C never meets half a file.
- Its size is bounded; entries not used for longest go first.
- Nothing is unpickled. A full, read-only or missing disk costs speed, not correctness.

Large entries (`put_arrays`: a whole compiled model with its weights) are written and read in pieces, never twice in
memory. Instead of a sha256 over everything, which takes longer than reading, they carry one over the sums of all 4 KiB
pages: it notices what disks and interrupted writes do; against somebody with access to the directory neither helps.

The directory is $GRAPHC_CACHE, else the platform's own place for caches ($XDG_CACHE_HOME/graphc, ~/.cache/graphc,
~/Library/Caches/graphc); GRAPHC_CACHE=off works without. GRAPHC_CACHE_MB bounds its size (default 512). Compiled
models lie in its folder `models`, with a bound of their own, GRAPHC_CACHE_MODELS_MB (default 2048, 0 keeps none).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.errors import CacheError, OptionError
from graphc.runtime.address import address_of

__all__ = [
    "ALIGNMENT",
    "Cache",
    "aligned",
    "aligned_empty",
    "default_cache",
    "default_directory",
    "model_cache",
    "split",
]

_MAGIC = b"graphc cache 1\n"
_HEADER = len(_MAGIC) + 8 + 32  # magic, length, sha256
_MAGIC_ARRAYS = b"graphc arrays 1\n"
_PAGE = 4096  # the head of an entry of arrays and its body are whole pages
_CHUNK = 1 << 20  # bytes to read or write at once: they stay in the processor's cache until they are summed up
ALIGNMENT = 64  # bytes, of the arrays of an entry in memory: a cache line, and the widest vector
_DEFAULT_MB = 512
_DEFAULT_MODELS_MB = 2048
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
        head = _MAGIC + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest()
        self._put(key, [head, payload], len(head) + len(payload))

    def put_arrays(self, key: str, head: bytes, arrays: Sequence[np.ndarray]) -> None:
        """Store arrays, as bytes, and a few bytes that say what they are. Nothing is stored when this is more than half
        of what the cache may hold."""
        blocks = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in arrays]
        first = _pages(len(_MAGIC_ARRAYS) + 8 + 8 + 32 + 32 + len(head))
        body = _pages(sum(_slot(b.nbytes) for b in blocks))
        if 2 * (first + body) > self.limit_bytes:
            return
        sums = hashlib.sha256()
        for chunk in _chunks(blocks):  # once for the checksum, which stands first, and once to be written
            sums.update(_page_sums(chunk))
        lengths = len(head).to_bytes(8, "little") + body.to_bytes(8, "little")
        opening = _MAGIC_ARRAYS + lengths + hashlib.sha256(lengths + head).digest() + sums.digest() + head
        opening += bytes(first - len(opening))
        self._put(key, itertools.chain([opening], _chunks(blocks)), first + body)

    def get_arrays(self, key: str) -> tuple[bytes, np.ndarray] | None:
        """The head that was stored and the bytes of the arrays, one behind the other (`split` takes them apart), in
        memory of the caller's own at a multiple of 64; None when there are none that are whole."""
        path = self._path(key)
        if path is None:
            return None
        try:
            with open(path, "rb", buffering=0) as file:
                found = _read_arrays(file)
        except OSError:
            return None
        if found is None:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self._touch(path)
        return found

    def _put(self, key: str, pieces: Iterable[Any], nbytes: int) -> None:
        path = self._path(key)
        if path is None:
            return
        try:
            _write_whole(path, pieces)
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return
        with self._lock:
            if self._written is not None:
                self._written += nbytes
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
            f"graphc keeps nothing compiled in {self.directory}: {problem}. Models compile again in every process; "
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


def model_cache() -> Cache:
    """The process's cache of compiled models: a folder of `default_cache()`, with a bound of its own."""
    parent = default_cache().directory
    limit = _limit_from_environment("GRAPHC_CACHE_MODELS_MB", _DEFAULT_MODELS_MB, least=0)
    directory = None if parent is None or limit == 0 else parent / "models"
    with _default_lock:
        if directory not in _defaults:
            _defaults[directory] = Cache(directory, limit)
        return _defaults[directory]


_default_lock = threading.Lock()
_defaults: dict[Path | None, Cache] = {}


def _limit_from_environment(variable: str = "GRAPHC_CACHE_MB", default: int = _DEFAULT_MB, least: int = 1) -> int:
    """Bytes, from a number of megabytes in the environment. Raises OptionError for anything else."""
    text = os.environ.get(variable, str(default))
    try:
        megabytes = int(text)
    except ValueError:
        megabytes = -1
    if megabytes < least:
        raise OptionError(f"{variable} is {text!r}; it takes a whole number of megabytes, at least {least}")
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


def _write_whole(path: Path, pieces: Iterable[Any]) -> None:
    import tempfile  # only who writes needs it, and it imports a lot

    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="tmp-", dir=path.parent)  # mode 0600, a name nobody else has
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
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


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> np.ndarray:
    """An uninitialised array whose address is a multiple of 64: a cache line, and the widest vector."""
    dtype = np.dtype(dtype)
    raw = np.empty(math.prod(shape if isinstance(shape, tuple) else (shape,)) * dtype.itemsize + ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, raw, -address_of(raw) % ALIGNMENT)


def aligned(array: np.ndarray) -> np.ndarray:
    """The array's bytes at an aligned address, copied only when they are not."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = aligned_empty(max(array.nbytes, 1))[: array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def split(body: np.ndarray, sizes: Iterable[int]) -> Iterator[np.ndarray]:
    """The arrays of an entry, as bytes, for the number of bytes of each. Raises ValueError when they are not there."""
    at = 0
    for nbytes in sizes:
        if nbytes < 0 or at + nbytes > len(body):
            raise ValueError(f"{nbytes} bytes at {at} lie outside of {len(body)}")
        yield body[at : at + nbytes]
        at += _slot(nbytes)


def _slot(nbytes: int) -> int:
    """The bytes that an array takes in a body."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE


def _chunks(blocks: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """A body in pieces of whole pages; each is good until the next one."""
    buffer, filled = np.zeros(_CHUNK, np.uint8), 0
    for block in blocks:
        at, padded = 0, _slot(block.nbytes)
        while at < padded:
            n = min(padded - at, _CHUNK - filled)
            part = block[at : at + n]
            buffer[filled : filled + len(part)] = part
            buffer[filled + len(part) : filled + n] = 0
            at, filled = at + n, filled + n
            if filled == _CHUNK:
                yield buffer
                filled = 0
    if filled:
        buffer[filled:] = 0
        yield buffer[: _pages(filled)]


def _page_sums(chunk: np.ndarray) -> bytes:
    """The sum of each page's 64-bit words."""
    return chunk.view(np.uint64).reshape(-1, _PAGE // 8).sum(axis=1).tobytes()


def _read_arrays(file: Any) -> tuple[bytes, np.ndarray] | None:
    """Head and body of an entry of arrays; None when it is damaged."""
    start, lengths = len(_MAGIC_ARRAYS), len(_MAGIC_ARRAYS) + 16
    opening = file.read(_PAGE)
    if len(opening) < _PAGE or not opening.startswith(_MAGIC_ARRAYS):
        return None
    head_bytes, body_bytes = (int.from_bytes(opening[k : k + 8], "little") for k in (start, start + 8))
    first = _pages(lengths + 64 + head_bytes)
    if os.fstat(file.fileno()).st_size != first + body_bytes or body_bytes % _PAGE:
        return None
    opening += file.read(first - _PAGE) if first > _PAGE else b""
    head = opening[lengths + 64 : lengths + 64 + head_bytes]
    if hashlib.sha256(opening[start:lengths] + head).digest() != opening[lengths : lengths + 32]:
        return None
    body, sums = aligned_empty(body_bytes), hashlib.sha256()
    for at in range(0, body_bytes, _CHUNK):
        chunk = body[at : at + _CHUNK]
        if file.readinto(chunk) != len(chunk):
            return None
        sums.update(_page_sums(chunk))
    return (head, body) if sums.digest() == opening[lengths + 32 : lengths + 64] else None


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
