"""Object files to one image: what a linker does for position-independent code, for the few things that kernels hold.

A kernel's object is code and read-only data, tied together by distances between them, and at most a few calls of
functions of the C library. Sections are laid one after the other, distances are filled in, and a call of a function
outside goes through a jump behind the code whose target is a word that the loader fills in.

Anything else in an object is an error: such a model is not stored, and its kernels are loaded by LLVM's linker as ever.
Sources: System V ABI, chapter 4; its AMD64 supplement, chapter 4.4, "Relocation".
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence

from graphc.codegen.cpu.compile import KernelObject
from graphc.codegen.cpu.objectfile import Object, Relocation, Section, read_object
from graphc.errors import CompileError
from graphc.runtime.image import Image

__all__ = ["link"]

_ALIGNMENT = 64
_R_X86_64_PC32, _R_X86_64_PLT32 = 2, 4
_JUMP = b"\xff\x25"  # jmp *[rip + distance]


def link(objects: Sequence[KernelObject]) -> Image:
    """One image of these kernels. Raises CompileError for an object that holds what an image has no place for."""
    if platform.machine() != "x86_64":
        raise CompileError(f"images are made for x86-64, and this is {platform.machine()}")
    linker = _Linker()
    for kernel in objects:
        try:
            linker.add(kernel.symbol, read_object(kernel.code))
        except (ValueError, IndexError, struct.error) as error:
            raise CompileError(f"the object code of kernel {kernel.name!r}: {error}") from error
    return linker.image()


class _Linker:
    """The image so far."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._entries: dict[str, int] = {}
        self._calls: dict[str, list[tuple[int, int]]] = {}  # of functions outside: (place of the distance, addend)

    def add(self, symbol: str, what: Object) -> None:
        """Lay out one object's sections and fill in the distances between them."""
        starts: dict[int, int] = {}
        for section in what.sections:
            if section.is_loaded and not section.is_unwinding:
                if section.is_writable or not section.has_bytes:
                    raise CompileError(f"section {section.name} is writable memory, which kernels do not have")
                self._align(section)
                starts[section.number] = len(self._code)
                self._code += section.data
        for place in what.relocations:
            if place.section in starts:
                self._relocate(starts, place)
        self._entries[symbol] = next(
            starts[s.section] + s.value for s in what.symbols if s.name == symbol and s.section in starts
        )

    def _align(self, section: Section) -> None:
        if section.alignment > _ALIGNMENT:
            raise CompileError(f"section {section.name} wants an address that is a multiple of {section.alignment}")
        self._code += bytes(-len(self._code) % _ALIGNMENT)

    def _relocate(self, starts: dict[int, int], place: Relocation) -> None:
        at, symbol = starts[place.section] + place.offset, place.symbol
        if place.kind not in (_R_X86_64_PC32, _R_X86_64_PLT32):
            raise CompileError(f"a relocation of kind {place.kind}")
        if symbol.section in starts:
            self._fill(at, starts[symbol.section] + symbol.value + place.addend)
        elif symbol.is_undefined and place.kind == _R_X86_64_PLT32:
            self._calls.setdefault(symbol.name, []).append((at, place.addend))
        else:
            raise CompileError(f"a reference to {symbol.name or 'a section'} that is no call")

    def _fill(self, at: int, target: int) -> None:
        """Write the distance from `at` to `target`."""
        struct.pack_into("<i", self._code, at, target - at)

    def image(self) -> Image:
        """The image, with a jump and a word behind the code for each function outside."""
        self._code += bytes(-len(self._code) % _ALIGNMENT)
        imports: dict[str, int] = {}
        for name, calls in sorted(self._calls.items()):
            jump = len(self._code)
            self._code += _JUMP + struct.pack("<i", 2) + bytes(2) + bytes(8)  # the word stands 8 bytes behind the jump
            imports[name] = jump + 8
            for at, addend in calls:
                self._fill(at, jump + addend)
        return Image(bytes(self._code), platform.machine(), self._entries, imports)
