"""Object code into this process, with llvmlite alone: a warm start never imports Numba.

Objects go through LLVM's ORC JIT with JITLink. It places all sections of an object in one block of memory, which
position-independent code needs (the older MCJIT may put constants further from the code than 32 bits reach, and does
not notice), and it reports a symbol it cannot find where MCJIT ends the process.

`Library.load` takes many objects at once: about 0.2 ms each, and 5 ms once for the engine. `kernel_addresses` is the
whole way from source text: what this process has, then the cache, then the compiler.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.codegen.cpu.compile import KEY_IN_SYMBOL, KernelObject, kernel_key
from graphc.codegen.cpu.objectfile import external_symbols
from graphc.codegen.cpu.workers import compile_all, dismiss, get_ready
from graphc.errors import CompileError
from graphc.runtime.cache import Cache, default_cache
from graphc.runtime.driver import DRIVER

__all__ = ["Library", "helpers_at_hand", "kernel_addresses", "kernel_objects", "library"]


# Engines and the trackers of what they linked. LLVM unloads code when these go, and plans hold bare addresses.
_FOREVER: list[Any] = []


class Library:
    """Native functions in this process, by symbol. Loaded code stays until the process ends; any thread may load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Any = None
        self._addresses: dict[str, int] = {}
        self._numbers = itertools.count()
        self.known: dict[str, KernelObject] = {}  # by kernel key: what `kernel_addresses` has loaded

    def load(self, objects: Iterable[KernelObject]) -> list[int]:
        """Addresses of `objects`' functions, in order; an object whose symbol is here already is not loaded twice.

        Raises CompileError, and loads nothing, when an object is damaged or needs a symbol that this process lacks.
        """
        wanted = list(objects)
        with self._lock:
            new = {o.symbol: o for o in wanted if o.symbol not in self._addresses}
            if new:
                self._link(list(new.values()))
            return [self._addresses[o.symbol] for o in wanted]

    def _link(self, objects: Sequence[KernelObject]) -> None:
        import llvmlite.binding as llvm

        if self._engine is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()  # ORC wants one even where nothing is compiled
            self._engine = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
        builder = llvm.JITLibraryBuilder().add_current_process()
        for kernel in objects:
            _check_symbols(kernel, llvm)
            builder.add_object_img(kernel.code).export_symbol(kernel.symbol)
        try:
            tracker = builder.link(self._engine, f"graphc{next(self._numbers)}")
        except RuntimeError as error:
            names = ", ".join(repr(kernel.name) for kernel in objects)
            raise CompileError(f"the object code of kernels {names} does not link: {error}") from error
        _FOREVER.extend((self._engine, tracker))
        self._addresses.update((kernel.symbol, tracker[kernel.symbol]) for kernel in objects)


def _check_symbols(kernel: KernelObject, llvm: Any) -> None:
    try:
        symbols = external_symbols(kernel.code) or ()
    except ValueError as error:
        raise CompileError(f"the object code of kernel {kernel.name!r} is damaged: {error}") from error
    missing = [name for name in symbols if name not in _LINKER_MADE and not llvm.address_of_symbol(name)]
    if missing:
        raise CompileError(
            f"kernel {kernel.name!r} calls {', '.join(missing)}, which this process does not have; "
            "kernels may call the C library, the math library and nothing else"
        )


_LINKER_MADE = ("_GLOBAL_OFFSET_TABLE_",)


def library() -> Library:
    """The process's library; code is the same for every model that needs it."""
    return _library


def kernel_addresses(
    sources: Sequence[tuple[str, str]],
    *,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[int]:
    """Addresses of native kernels, in order, compiling those that neither this process nor the cache has.

    Args:
        sources: (name of the function, text of the module that defines it) of each kernel.
        cache: where compiled kernels are kept; the user's own cache when not given.
        progress: called with (kernels compiled so far, kernels to compile), also once before the first.

    Raises:
        CompileError: a kernel does not compile or link. Those compiled before it stay in the cache.
    """
    store = default_cache() if cache is None else cache
    keys = [kernel_key(name, text) for name, text in sources]
    objects: dict[str, KernelObject] = {}
    missing: dict[str, tuple[str, str]] = {}
    for key, source in zip(keys, sources, strict=True):
        if key in objects or key in missing:
            continue
        found = _library.known.get(key) or _stored(store, key)
        if found is None:
            missing[key] = source
        else:
            objects[key] = found
    if missing:
        # The plan's driver is one more kernel, and the largest: compile it beside the others, not after them.
        key = kernel_key(*DRIVER)
        if key not in missing and key not in _library.known and _stored(store, key) is None:
            missing[key] = DRIVER
        if progress:
            progress(0, len(missing))
        for done, (index, compiled) in enumerate(compile_all(list(missing.values())), 1):
            key = list(missing)[index]
            objects[key] = compiled
            if compiled.symbol.endswith(
                key[:KEY_IN_SYMBOL]
            ):  # else graphc's own sources changed since this process began
                store.put(key, compiled.to_bytes())
            if progress:
                progress(done, len(missing))
    addresses = _library.load(objects.values())
    _library.known.update(objects)
    by_key = dict(zip(objects, addresses, strict=True))
    return [by_key[key] for key in keys]


@contextmanager
def helpers_at_hand() -> Iterator[None]:
    """Inside the block a model is planned and its kernels are compiled. Where not even the driver was ever compiled all
    of them will have to be, and the processes that do it start at once."""
    if not library().known and default_cache().get(kernel_key(*DRIVER)) is None:
        get_ready(DRIVER)
    try:
        yield
    finally:
        dismiss()


def kernel_objects(sources: Sequence[tuple[str, str]]) -> list[KernelObject]:
    """The objects of kernels, in order; those that this process does not have are loaded first."""
    kernel_addresses(sources)
    return [_library.known[kernel_key(name, text)] for name, text in sources]


def _stored(store: Cache, key: str) -> KernelObject | None:
    data = store.get(key)
    try:
        return None if data is None else KernelObject.from_bytes(data)
    except ValueError:  # written by a version of graphc that kept something else under the key
        return None


_library = Library()


def _forget_lock() -> None:
    # Another thread may have held the lock when this process was forked; in the child nobody would let it go.
    _library._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
