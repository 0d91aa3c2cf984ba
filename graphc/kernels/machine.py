"""The machine that kernels are made for: vector width, registers, caches. Plain data, no compiler behind it.

Schedules are chosen from these numbers alone, so that a schedule for another machine can be made and read anywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from graphc.errors import OptionError

__all__ = ["ISAS", "Isa", "Machine", "host_machine"]


@dataclass(frozen=True, slots=True)
class Isa:
    """An instruction set, as far as a schedule cares.

    name                 what GRAPHC_ISA calls it
    vector_bits          width of a vector register
    registers            how many vector registers there are
    fma_per_cycle        fused multiply-adds issued a cycle
    fma_latency          cycles until the result of one can be used
    loads_per_cycle      vector loads (or broadcasts from memory) a cycle
    bfloat16_dot         whether one instruction adds the products of two pairs of bfloat16 numbers to a float32 lane
    """

    name: str
    vector_bits: int
    registers: int
    fma_per_cycle: int = 2
    fma_latency: int = 4
    loads_per_cycle: float = 2
    bfloat16_dot: bool = False

    def lanes(self, itemsize: int) -> int:
        """How many elements of `itemsize` bytes a vector holds."""
        return self.vector_bits // (8 * itemsize)

    def step_cycles(self, rows: int, vectors: int) -> float:
        """Cycles of one step of a register tile: its multiplications, the latency of its sums, or its loads, whichever
        binds."""
        return max(rows * vectors / self.fma_per_cycle, self.fma_latency, (rows + vectors) / self.loads_per_cycle)


ISAS = {
    isa.name: isa
    for isa in (
        Isa("avx512", 512, 32),
        Isa("avx512vl", 256, 32, loads_per_cycle=1.4),
        Isa("avx2", 256, 16),
        Isa("neon", 128, 32),
        Isa("generic", 128, 16),
    )
}


#: processors, in LLVM's names, that issue a 512-bit operation as two of 256 bits
HALF_WIDE = ("znver4",)


#: instruction sets whose vectors have half the lanes, on the same registers
NARROWER = {"avx512": "avx512vl"}


@dataclass(frozen=True, slots=True)
class Machine:
    """An instruction set and the bytes of the caches that one core has to itself."""

    isa: Isa
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    #: bytes a cycle that one core reads from beyond L2 when it asks ahead: a cautious number for today's machines
    stream_bytes_per_cycle: float = 8.0
    #: bytes a cycle that each core reads from a cache that all share
    shared_bytes_per_cycle: float = 16.0
    #: bytes a cycle that a core reads from its own L2
    l2_bytes_per_cycle: float = 28.0

    @property
    def narrower(self) -> Machine | None:
        """The same machine with vectors of half the width, where it computes with them as well."""
        other = NARROWER.get(self.isa.name)
        if other is None:
            return None
        return replace(self, isa=replace(ISAS[other], bfloat16_dot=self.isa.bfloat16_dot))

    def has_lanes(self, lanes: int, itemsize: int) -> bool:
        """Whether this machine, or its narrower form, has vectors of so many elements."""
        return any(m is not None and m.isa.lanes(itemsize) == lanes for m in (self, self.narrower))

    def with_lanes(self, lanes: int, itemsize: int) -> Machine:
        """This machine, or its narrower form: whichever has so many lanes. Raises ValueError when neither has."""
        for machine in (self, self.narrower):
            if machine is not None and machine.isa.lanes(itemsize) == lanes:
                return machine
        raise ValueError(f"{self.isa.name} has no vectors of {lanes} elements of {itemsize} bytes")


@lru_cache(maxsize=1)
def host_machine() -> Machine:
    """The machine of this process; the environment variable GRAPHC_ISA (avx512, avx512vl, avx2, neon, generic) overrides the ISA.

    Raises OptionError when GRAPHC_ISA names none of them.
    """
    chosen = os.environ.get("GRAPHC_ISA")
    if chosen is not None and chosen not in ISAS:
        raise OptionError(
            f"GRAPHC_ISA={chosen!r} is not an instruction set that graphc knows; it knows {', '.join(ISAS)}"
        )
    isa = ISAS[chosen] if chosen is not None else _host_isa()
    caches = _cache_bytes()
    return Machine(isa, caches.get(1, 32 << 10), caches.get(2, 512 << 10))


def _host_isa() -> Isa:
    import llvmlite.binding as llvm  # 40 ms, and only needed once a kernel has to be made or found

    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        isa = replace(ISAS["avx512"], bfloat16_dot=bool(features.get("avx512bf16")))
        return replace(isa, fma_per_cycle=1) if llvm.get_host_cpu_name() in HALF_WIDE else isa
    if features.get("avx2") and features.get("fma"):
        return ISAS["avx2"]
    if features.get("neon") or llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return ISAS["neon"]
    return ISAS["generic"]


def _cache_bytes() -> dict[int, int]:
    """Bytes of the data caches of one core by level, where the operating system says so."""
    sizes: dict[int, int] = {}
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = ((entry / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                sizes[int(level)] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return sizes
