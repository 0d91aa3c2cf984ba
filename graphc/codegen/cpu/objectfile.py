"""Object files, read: sections, symbols and relocations of ELF64, as far as graphc looks at them.

LLVM ends the whole process when it links an object whose symbols it cannot find, so graphc looks first
(`external_symbols`); and `graphc.runtime.link` makes images of objects. llvmlite does not expose either; the few fields
needed of ELF64 are read here (System V ABI, chapter 4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Object", "Relocation", "Section", "Symbol", "external_symbols", "needs_numba", "read_object"]

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _SHT_X86_64_UNWIND = 2, 4, 8, 0x70000001
_SHF_WRITE, _SHF_ALLOC = 1, 2
_SHN_UNDEF = 0

# Symbols that only a process with Numba or the interpreter's C API at hand can offer. A kernel that asks for one
# allocates, raises or touches Python objects: none of that belongs in a kernel, and a warm start has no Numba.
_NUMBA_PREFIXES = ("NRT_", "numba_", "nrt_", "Py", "_Py", "_ZN")


@dataclass(frozen=True)
class Section:
    """A section: its number in the file, name, kind and flags, the alignment it wants, and its bytes."""

    number: int
    name: str
    kind: int
    flags: int
    alignment: int
    data: bytes

    @property
    def is_loaded(self) -> bool:
        """Whether it is part of the running program's memory."""
        return bool(self.flags & _SHF_ALLOC)

    @property
    def is_writable(self) -> bool:
        return bool(self.flags & _SHF_WRITE)

    @property
    def has_bytes(self) -> bool:
        """Whether its content is in the file, and not zeros that the loader makes."""
        return self.kind != _SHT_NOBITS

    @property
    def is_unwinding(self) -> bool:
        """Tables for exceptions and debuggers, which nothing needs to run."""
        return self.kind == _SHT_X86_64_UNWIND or self.name == ".eh_frame"


@dataclass(frozen=True)
class Symbol:
    """A name for a place: `value` bytes into the section of that number."""

    name: str
    section: int
    value: int

    @property
    def is_undefined(self) -> bool:
        return self.section == _SHN_UNDEF


@dataclass(frozen=True)
class Relocation:
    """A place in a section, `offset` bytes into it, that depends on where `symbol` will lie."""

    section: int
    offset: int
    kind: int
    symbol: Symbol
    addend: int


@dataclass(frozen=True)
class Object:
    """An object file."""

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]


def read_object(code: bytes) -> Object:
    """An ELF64 object. Raises ValueError when it is none, or when its tables point outside the file."""
    if not code.startswith(_ELF64_LITTLE):
        raise ValueError("not a 64-bit little-endian ELF object")
    try:
        return _read(code)
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a whole ELF object: {error}") from error


def external_symbols(code: bytes) -> tuple[str, ...] | None:
    """Names that `code` uses and does not define, sorted; None when it is not a 64-bit little-endian ELF object.

    Raises ValueError when the tables point outside the file (a truncated object).
    """
    if not code.startswith(_ELF64_LITTLE):
        return None
    return tuple(sorted({s.name for s in read_object(code).symbols if s.is_undefined and s.name}))


def needs_numba(symbols: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `symbols` that belong to Numba's runtime or to the interpreter."""
    return tuple(name for name in symbols if name.startswith(_NUMBA_PREFIXES))


def _read(code: bytes) -> Object:
    (sections_at,) = struct.unpack_from("<Q", code, 40)
    header_size, count, names_index = struct.unpack_from("<HHH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, sections_at + i * header_size) for i in range(count)]
    sections, symbols, relocations = [], [], []
    for number, (name, kind, flags, _, at, size, _, _, alignment, _) in enumerate(headers):
        data = b"" if kind == _SHT_NOBITS else code[at : at + size]
        if kind != _SHT_NOBITS and len(data) != size:
            raise IndexError(f"section {number} ends outside the file")
        sections.append(Section(number, _text(code, headers[names_index], name), kind, flags, alignment, data))
    tables = {number: _symbols(code, headers, number) for number, h in enumerate(headers) if h[1] == _SHT_SYMTAB}
    for table in tables.values():
        symbols.extend(table)
    for _, kind, _, _, at, size, table_index, target, _, entry_size in headers:
        if kind == _SHT_RELA:
            for entry in range(at, at + size, entry_size):
                offset, info, addend = struct.unpack_from("<QQq", code, entry)
                symbol = tables[table_index][info >> 32]
                relocations.append(Relocation(target, offset, info & 0xFFFFFFFF, symbol, addend))
    return Object(tuple(sections), tuple(symbols), tuple(relocations))


def _symbols(code: bytes, headers: list[tuple[int, ...]], number: int) -> list[Symbol]:
    _, _, _, _, at, size, strings, _, _, entry_size = headers[number]
    found = []
    for entry in range(at, at + size, entry_size):
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", code, entry)
        found.append(Symbol(_text(code, headers[strings], name), section, value))
    return found


def _text(code: bytes, strings: tuple[int, ...], at: int) -> str:
    """The zero-ended text `at` bytes into a section of strings."""
    start = strings[4] + at
    end = code.find(b"\0", start)
    if end < 0:
        raise IndexError("a name does not end")
    return code[start:end].decode()
