"""Digests of files: remembered for those that nobody has touched since."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from graphc.runtime import digest
from graphc.runtime.cache import Cache


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(bytes(5 << 20))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each file that was read."""
    seen: list[int] = []
    really = hashlib.file_digest

    def counted(file, algorithm):  # type: ignore[no-untyped-def]
        seen.append(file.fileno())
        return really(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return seen


def of(path: Path, cache: Cache) -> str:
    with path.open("rb") as file:
        found = digest.file_digest(file.fileno(), cache)
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_file_at_rest_is_read_once(
    large: Path, reads: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "c")
    of(large, cache)
    of(large, cache)
    assert len(reads) == 2  # it has only just been written
    monkeypatch.setattr(digest, "_SETTLED_S", -1.0)
    of(large, cache)
    of(large, cache)
    assert len(reads) == 3


def test_a_change_is_seen(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even by somebody who sets the time of the last change back and keeps the size."""
    monkeypatch.setattr(digest, "_SETTLED_S", -1.0)
    cache = Cache(tmp_path / "c")
    before, status = of(large, cache), large.stat()
    with large.open("r+b") as file:
        file.write(b"x")
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert large.stat().st_mtime_ns == status.st_mtime_ns
    assert of(large, cache) != before
    other = tmp_path / "other"
    other.write_bytes(b"y" * (5 << 20))
    os.replace(other, large)
    assert of(large, cache) != before


def test_small_files_are_always_read(reads: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_SETTLED_S", -1.0)
    path, cache = tmp_path / "small", Cache(tmp_path / "c")
    path.write_bytes(b"abc")
    of(path, cache)
    of(path, cache)
    assert len(reads) == 2
