"""The object cache: what it promises when disks, users and other processes misbehave."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from graphc.errors import CacheError, OptionError
from graphc.runtime import cache as module
from graphc.runtime.cache import Cache, default_cache, default_directory


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def only_file(directory: Path) -> Path:
    (path,) = [p for p in directory.rglob("*") if p.is_file()]
    return path


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "deep")
    assert cache.get(key("a")) is None
    cache.put(key("a"), b"one")
    cache.put(key("b"), b"")
    assert cache.get(key("a")) == b"one"
    assert cache.get(key("b")) == b""
    cache.put(key("a"), b"two")
    assert Cache(tmp_path / "new" / "deep").get(key("a")) == b"two"
    assert cache.size()[0] == 2
    cache.clear()
    assert cache.size() == (0, 0)


def test_the_directory_is_private(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    cache.put(key("a"), b"x")
    for path in (tmp_path / "c").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign", "longer"])
def test_a_damaged_file_is_absent_and_replaced(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put(key("a"), b"payload" * 100)
    path = only_file(tmp_path)
    raw = bytearray(path.read_bytes())
    match damage:
        case "truncate":
            raw = raw[:-5]
        case "flip":
            raw[-5] ^= 1
        case "empty":
            raw = bytearray()
        case "foreign":
            raw = bytearray(b"\x80\x04K\x01." * 30)
        case "longer":
            raw += b"x"
    path.write_bytes(raw)
    assert cache.get(key("a")) is None
    assert not path.exists()
    cache.put(key("a"), b"again")
    assert cache.get(key("a")) == b"again"


def test_a_directory_others_can_write_to_is_refused_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="others may write"):
        cache = Cache(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(key("a"), b"x")
        assert cache.get(key("a")) is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(CacheError, match="others may write"):
        Cache(tmp_path, strict=True)


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="belongs to user"):
        assert Cache(tmp_path).directory is None


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # the superuser may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    tmp_path.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="cannot be written to"):
        cache = Cache(tmp_path)
    cache.put(key("a"), b"x")
    assert cache.get(key("a")) is None
    tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="exists|directory"):
        Cache(tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="directory"):
        Cache(tmp_path / "file" / "below")


def test_a_disk_that_fills_up_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.put(key("a"), b"x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        cache.put(key("b"), b"y")
    assert not list(tmp_path.rglob("tmp-*"))


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(key("a"), b"x")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=20_000)
    for i in range(30):
        cache.put(key(str(i)), bytes(1000))
        if i >= 5:
            assert cache.get(key("3")) is not None
        for path in tmp_path.rglob("??/*"):  # an hour passes
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3700))
    assert cache.size()[1] <= 20_000 + 4_000
    assert cache.get(key("29")) is not None
    assert cache.get(key("3")) is not None
    assert cache.get(key("0")) is None


def test_abandoned_temporary_files_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "ab"
    folder.mkdir(mode=0o700)
    old, fresh = folder / "tmp-old", folder / "tmp-fresh"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    Cache(tmp_path).put(key("a"), b"x")
    assert not old.exists()
    assert fresh.exists()


def test_keys_cannot_name_other_files(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for bad in ("../../../etc/passwd", "ab/../../..", "", "abc", "a.b.c.d.e.f.g"):
        with pytest.raises(ValueError, match="key"):
            cache.get(bad)


def test_two_processes_write_and_read_the_same_keys(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from graphc.runtime.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]), limit_bytes=40_000)\n"
        "for i in range(400):\n"
        "    name = f'{i % 7:064x}'; payload = bytes([i % 7]) * 5000\n"
        "    found = cache.get(name); assert found in (None, payload), i\n"
        "    cache.put(name, payload)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-W", "error", "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert not list(tmp_path.rglob("tmp-*"))


def test_the_environment_chooses_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "mine"))
    assert default_directory() == tmp_path / "mine"
    assert default_cache() is default_cache()
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert default_directory() is None
    default_cache().put(key("a"), b"x")
    assert default_cache().get(key("a")) is None
    monkeypatch.delenv("GRAPHC_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "graphc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "graphc"
    monkeypatch.setenv("GRAPHC_CACHE_MB", "some")
    with pytest.raises(OptionError, match="GRAPHC_CACHE_MB is 'some'"):
        module._limit_from_environment()
