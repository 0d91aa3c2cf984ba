"""Measured choices, kept on disk for this processor: the table that `graphc.kernels.choice` asks.

A JSON file in the cache folder, written whole and renamed into place. A file that is not sound counts as absent.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.runtime.cache import default_directory
from graphc.runtime.fingerprint import processor

if TYPE_CHECKING:
    from graphc.kernels.choice import Choice

__all__ = ["keep", "kept", "stamp"]

_FORMAT = 1


def _file() -> Path | None:
    directory = default_directory()
    return None if directory is None else directory / f"tuned-{_processor_digest()}.json"


@functools.cache
def _processor_digest() -> str:
    return hashlib.sha256(processor().encode()).hexdigest()[:16]


def stamp() -> str:
    """What changes when the table does: what is compiled with it depends on this."""
    path = _file()
    if path is None:
        return ""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


@functools.lru_cache(maxsize=4)
def _read(path: Path, known: str) -> dict[str, Choice]:
    try:
        data = json.loads(path.read_text())
        if data["format"] != _FORMAT:
            return {}
        return {str(k): _choice(v) for k, v in data["choices"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _choice(row: Mapping[str, Any]) -> Choice:
    from graphc.kernels.choice import Choice

    rows, vectors, tile, levels = int(row["rows"]), int(row["vectors"]), row.get("tile"), int(row.get("levels", 0))
    if not (1 <= rows <= 32 and 1 <= vectors <= 16 and 0 <= levels <= 2 and (tile is None or len(tile) == 2)):
        raise ValueError(f"not a choice: {row}")
    return Choice(rows, vectors, None if tile is None else (int(tile[0]), int(tile[1])), levels)


def kept() -> dict[str, Choice]:
    """The choices that were measured on this processor before; empty when there are none, or no cache."""
    path, known = _file(), stamp()
    return _read(path, known) if path is not None and known else {}


def keep(choices: Mapping[str, Choice]) -> None:
    """Add choices to those that are kept. On a full or read-only disk this does nothing."""
    path = _file()
    if path is None or not choices:
        return
    everything = {**kept(), **choices}
    rows = {k: asdict(c) for k, c in sorted(everything.items())}
    with contextlib.suppress(OSError):  # a full or read-only disk: the choices hold in this process only
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".tuned-")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({"format": _FORMAT, "choices": rows}, file, indent=0)
            Path(aside).replace(path)
        except OSError:
            Path(aside).unlink(missing_ok=True)
            raise
