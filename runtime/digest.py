"""The sha256 of a file's bytes, by which a stored model is found, without reading a large file each time.

For a file that it has read before it goes by what the system says of it: device, number, size, and the times of the
last change of its content and of its entry, to the nanosecond. The second of those nobody can set back. As in Git's
index, what was changed too shortly before it was read is not remembered: it could change again in the same instant.
"""

from __future__ import annotations

import hashlib
import os
import time

from graphc.runtime.cache import Cache

__all__ = ["file_digest"]

_WORTH_REMEMBERING = 4 << 20  # bytes; less is read in a few milliseconds
_SETTLED_S = 2.0  # file systems count time in steps of up to this


def file_digest(descriptor: int, cache: Cache) -> str:
    """The digest, in hexadecimal, of an open file. Raises OSError when it cannot be read."""
    status = os.fstat(descriptor)
    known_by = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    key = hashlib.sha256(f"digest of the file {known_by}".encode()).hexdigest()
    is_large = status.st_size >= _WORTH_REMEMBERING
    known = cache.get(key) if is_large else None
    if known is not None and len(known) == 64:
        return known.decode("ascii", "replace")
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if is_large and time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S:
        cache.put(key, digest.encode())
    return digest
