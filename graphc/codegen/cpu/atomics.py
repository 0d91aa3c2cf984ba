"""Intrinsics that the plan's driver is written with: atomic words, indirect calls, the system calls of a thread pool.

Atomic operations take `(words, index)`: a CPointer(int64) and an index into it. Orderings are the ones the driver
needs and no more, in the words of the C++11 memory model.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "call_kernel",
    "cells",
    "clock_ns",
    "compare_exchange",
    "fence",
    "fetch_add",
    "futex_on_high_half",
    "load_acquire",
    "load_relaxed",
    "pause",
    "read_byte",
    "sleep_us",
    "store_relaxed",
    "store_release",
    "yield_core",
]

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_WORDS = types.CPointer(types.int64)


def _external(builder: Any, name: str, signature: ir.FunctionType) -> Any:
    known = builder.module.globals.get(name)
    return known if known is not None else ir.Function(builder.module, signature, name)


@intrinsic
def cells(typingctx, address):  # type: ignore[no-untyped-def]
    """An address (int64) as a pointer to int64 words."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], _I64.as_pointer())

    return _WORDS(types.int64), codegen


@intrinsic
def read_byte(typingctx, address):  # type: ignore[no-untyped-def]
    """The byte at an address, as int64."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.zext(builder.load(builder.inttoptr(arguments[0], _I8.as_pointer())), _I64)

    return types.int64(types.int64), codegen


@intrinsic
def load_acquire(typingctx, words, index):  # type: ignore[no-untyped-def]
    """words[index]; what another thread wrote before its release of this word is visible after."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, index = arguments
        return builder.load_atomic(builder.gep(words, [index]), ordering="acquire", align=8)

    return types.int64(_WORDS, types.int64), codegen


@intrinsic
def load_relaxed(typingctx, words, index):  # type: ignore[no-untyped-def]
    """words[index], whole, in no order with anything else."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, index = arguments
        return builder.load_atomic(builder.gep(words, [index]), ordering="monotonic", align=8)

    return types.int64(_WORDS, types.int64), codegen


@intrinsic
def store_relaxed(typingctx, words, index, value):  # type: ignore[no-untyped-def]
    """words[index] = value, whole, in no order with anything else."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, index, value = arguments
        builder.store_atomic(value, builder.gep(words, [index]), ordering="monotonic", align=8)
        return context.get_dummy_value()

    return types.void(_WORDS, types.int64, types.int64), codegen


@intrinsic
def store_release(typingctx, words, index, value):  # type: ignore[no-untyped-def]
    """words[index] = value, after everything this thread wrote before."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, index, value = arguments
        builder.store_atomic(value, builder.gep(words, [index]), ordering="release", align=8)
        return context.get_dummy_value()

    return types.void(_WORDS, types.int64, types.int64), codegen


@intrinsic
def fence(typingctx):  # type: ignore[no-untyped-def]
    """No load or store of this thread crosses this point, in the order all threads agree on."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def fetch_add(typingctx, words, index, value):  # type: ignore[no-untyped-def]
    """words[index] += value, acquiring and releasing; the value before."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, index, value = arguments
        return builder.atomic_rmw("add", builder.gep(words, [index]), value, "acq_rel")

    return types.int64(_WORDS, types.int64, types.int64), codegen


@intrinsic
def compare_exchange(typingctx, words, index, expected, value):  # type: ignore[no-untyped-def]
    """Whether words[index] was `expected`, in which case it is `value` now."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, index, expected, value = arguments
        pair = builder.cmpxchg(builder.gep(words, [index]), expected, value, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(_WORDS, types.int64, types.int64, types.int64), codegen


@intrinsic
def call_kernel(typingctx, function, block, first, last, scratch):  # type: ignore[no-untyped-def]
    """Call the kernel at an address."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        function, block, first, last, scratch = arguments
        kernel = ir.FunctionType(ir.VoidType(), [_I64.as_pointer(), _I64, _I64, _I64])
        pointer = builder.inttoptr(function, kernel.as_pointer())
        builder.call(pointer, [builder.inttoptr(block, _I64.as_pointer()), first, last, scratch])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):  # type: ignore[no-untyped-def]
    """Tell the core that this is a spin loop: it saves power and lets a sibling hardware thread run."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        triple = builder.module.triple
        if triple.startswith("x86"):
            builder.call(_external(builder, "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])
        elif triple.startswith(("aarch64", "arm64")):
            hint = _external(builder, "llvm.aarch64.hint", ir.FunctionType(ir.VoidType(), [_I32]))
            builder.call(hint, [_I32(1)])  # YIELD
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typingctx):  # type: ignore[no-untyped-def]
    """Let another thread have this core: sched_yield(2)."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.call(_external(builder, "sched_yield", ir.FunctionType(_I32, [])), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def sleep_us(typingctx, microseconds):  # type: ignore[no-untyped-def]
    """Sleep: usleep(3)."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        microseconds = builder.trunc(arguments[0], _I32)
        builder.call(_external(builder, "usleep", ir.FunctionType(_I32, [_I32])), [microseconds])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def clock_ns(typingctx, clock):  # type: ignore[no-untyped-def]
    """clock_gettime(2) of clock number `clock` in nanoseconds."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        timespec = ir.ArrayType(_I64, 2)
        place = cgutils.alloca_once(builder, timespec)  # in the entry block: an alloca in a loop grows the stack
        number = builder.trunc(arguments[0], _I32)
        read = _external(builder, "clock_gettime", ir.FunctionType(_I32, [_I32, timespec.as_pointer()]))
        builder.call(read, [number, place])
        now = builder.load(place)
        seconds, nanoseconds = builder.extract_value(now, 0), builder.extract_value(now, 1)
        return builder.add(builder.mul(seconds, _I64(1_000_000_000)), nanoseconds)

    return types.int64(types.int64), codegen


@intrinsic
def futex_on_high_half(typingctx, number, words, index, operation, value):  # type: ignore[no-untyped-def]
    """Linux's futex(2), system call `number`, on the upper 32 bits of words[index], without timeout or error.

    The upper half lies second in memory: every processor graphc runs on is little-endian.
    """

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        number, words, index, operation, value = arguments
        half = builder.gep(builder.bitcast(builder.gep(words, [index]), _I32.as_pointer()), [_I32(1)])
        syscall = _external(builder, "syscall", ir.FunctionType(_I64, [_I64], var_arg=True))
        null = ir.Constant(_I64.as_pointer(), None)
        operation, value = builder.trunc(operation, _I32), builder.trunc(value, _I32)
        builder.call(syscall, [number, half, operation, value, null, null, _I32(0)])
        return context.get_dummy_value()

    return types.void(types.int64, _WORDS, types.int64, types.int64, types.int64), codegen
