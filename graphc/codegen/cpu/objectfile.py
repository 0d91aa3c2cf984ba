"""What an object file needs from outside: its undefined symbols, read from the ELF symbol table.

LLVM ends the whole process when it links an object whose symbols it cannot find, so graphc looks first. llvmlite does
not expose symbol tables; the few fields needed of ELF64 are read here (System V ABI, chapter 4, "Symbol Table").
"""

from __future__ import annotations

import struct

__all__ = ["external_symbols", "needs_numba"]

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_SHT_SYMTAB = 2
_SHN_UNDEF = 0

# Symbols that only a process with Numba or the interpreter's C API at hand can offer. A kernel that asks for one
# allocates, raises or touches Python objects: none of that belongs in a kernel, and a warm start has no Numba.
_NUMBA_PREFIXES = ("NRT_", "numba_", "nrt_", "Py", "_Py", "_ZN")


def external_symbols(code: bytes) -> tuple[str, ...] | None:
    """Names that `code` uses and does not define, sorted; None when it is not a 64-bit little-endian ELF object.

    Raises ValueError when the tables point outside the file (a truncated object).
    """
    if not code.startswith(_ELF64_LITTLE):
        return None
    try:
        return tuple(sorted(_undefined(code)))
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a whole ELF object: {error}") from error


def needs_numba(symbols: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `symbols` that belong to Numba's runtime or to the interpreter."""
    return tuple(name for name in symbols if name.startswith(_NUMBA_PREFIXES))


def _undefined(code: bytes) -> set[str]:
    (sections_at,) = struct.unpack_from("<Q", code, 40)
    section_size, section_count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, sections_at + i * section_size) for i in range(section_count)]
    names: set[str] = set()
    for _, kind, _, _, at, size, strings_index, _, _, entry_size in sections:
        if kind != _SHT_SYMTAB:
            continue
        strings_at = sections[strings_index][4]
        for entry in range(at, at + size, entry_size):
            name, _, _, section = struct.unpack_from("<IBBH", code, entry)
            if section == _SHN_UNDEF and name:
                start = strings_at + name
                names.add(code[start : code.index(b"\0", start)].decode())
    return names
