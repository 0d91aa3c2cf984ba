"""Images: kernels linked once, without LLVM, run as those that LLVM links."""

from __future__ import annotations

import ctypes
import dataclasses
import platform
import struct

import numpy as np
import pytest

from graphc.codegen.cpu.compile import KernelObject, compile_source
from graphc.codegen.cpu.objectfile import read_object
from graphc.errors import CompileError
from graphc.runtime.image import Image, load_image
from graphc.runtime.link import link
from graphc.runtime.native import Library

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="images are made for x86-64 alone")

# constants of several kinds, a table that a chain of conditions becomes, and a loop that becomes memset
TEXT = """
from graphc.codegen.cpu.atomics import cells


def scaled(block, first, last, scratch):
    out = cells(block[0])
    for task in range(first, last):
        out[task] = int((task + 7.25) * 1.5 + 0.3125)


def chosen(block, first, last, scratch):
    out = cells(block[0])
    for task in range(first, last):
        k = task % 8
        if k == 0:
            out[task] = 17
        elif k == 1:
            out[task] = 4
        elif k == 2:
            out[task] = 90
        elif k == 3:
            out[task] = -6
        elif k == 4:
            out[task] = 31
        else:
            out[task] = task * task


def cleared(block, first, last, scratch):
    out = cells(block[0])
    for task in range(first, last):
        out[task] = 0
"""
NAMES = ("scaled", "chosen", "cleared")


@pytest.fixture(scope="module")
def objects() -> list[KernelObject]:
    return [compile_source(name, TEXT) for name in NAMES]


def call(address: int, count: int) -> list[int]:
    out = np.full(count, -1, np.int64)
    block = np.array([out.ctypes.data], np.int64)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)
    entry(block.ctypes.data, 0, count, 0)
    return [int(v) for v in out]


def test_an_image_does_what_the_objects_do(objects: list[KernelObject]) -> None:
    image = link(objects)
    start = load_image(image)
    for kernel, address in zip(objects, Library().load(objects), strict=True):
        assert call(start + image.entries[kernel.symbol], 300) == call(address, 300)


def test_it_holds_what_makes_linking_necessary(objects: list[KernelObject]) -> None:
    """Or the test above would show little: a constant in another section, and a function of the C library."""
    assert "memset" in link(objects).imports
    assert any(s.name.startswith(".rodata") for s in read_object(objects[0].code).sections)
    assert read_object(objects[0].code).relocations


def test_it_may_lie_anywhere(objects: list[KernelObject]) -> None:
    image = link(objects)
    first, second = load_image(image), load_image(image)
    assert first != second
    at = image.entries[objects[0].symbol]
    assert call(first + at, 20) == call(second + at, 20)


def test_its_memory_cannot_be_written(objects: list[KernelObject]) -> None:
    start = load_image(link(objects))
    with open("/proc/self/maps", encoding="ascii") as maps:
        (permissions,) = [
            words[1]
            for words in map(str.split, maps)
            if int(words[0].split("-")[0], 16) <= start < int(words[0].split("-")[1], 16)
        ]
    assert permissions == "r-xp"


def test_a_function_that_is_not_there_is_an_error(objects: list[KernelObject]) -> None:
    image = link(objects)
    with pytest.raises(CompileError, match="no_such_function"):
        load_image(image._replace(imports={"no_such_function_anywhere": 0}))


def test_every_distance_is_checked_not_guessed(objects: list[KernelObject]) -> None:
    """An unknown kind of relocation is an error, and so are writable memory and a table that lies outside the file."""
    code = bytearray(objects[0].code)
    (sections_at,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, sections_at + i * size) for i in range(count)]
    relocations = next(h for h in headers if h[1] == 4)
    changed = bytearray(code)
    struct.pack_into("<I", changed, relocations[4] + 8, 42)
    with pytest.raises(CompileError, match="relocation of kind 42"):
        link([dataclasses.replace(objects[0], code=bytes(changed))])

    changed = bytearray(code)
    text = next(i for i, h in enumerate(headers) if h[2] == 6)  # allocated, executable
    struct.pack_into("<Q", changed, sections_at + text * size + 8, 7)
    with pytest.raises(CompileError, match="writable"):
        link([dataclasses.replace(objects[0], code=bytes(changed))])

    with pytest.raises(CompileError, match="kernel 'scaled'"):
        link([dataclasses.replace(objects[0], code=bytes(code[: len(code) // 2]))])
    with pytest.raises(CompileError, match="not a 64-bit"):
        link([dataclasses.replace(objects[0], code=b"MZ" + bytes(code[2:]))])


def test_images_compare_by_content(objects: list[KernelObject]) -> None:
    assert link(objects) == link(objects)
    assert isinstance(link([]), Image)
