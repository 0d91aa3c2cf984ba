"""Numba's half of a compilation: a Python function, typed and lowered to LLVM IR.

Everything that graphc uses of Numba's internals is here. Importing this module imports Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba import types
from numba.core import codegen, compiler, registry

__all__ = ["lower"]

_SIGNATURE = (types.CPointer(types.int64), types.int64, types.int64, types.int64)


class _PlainLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]
    """Collects a function's IR as it is.

    Numba optimises each function on its own before it optimises all together. graphc's passes follow in any case;
    without that round a contraction kernel compiles in four fifths of the time, to code as good.
    """

    def add_llvm_module(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        self._final_module.link_in(ll_module)


def lower(function: Callable[..., None], fastmath: frozenset[str], error_model: str) -> tuple[Any, str]:
    """The LLVM module of a kernel and all it calls, not optimised, and the name of its entry for C callers.

    Raises Numba's own errors. The caller holds Numba's compiler lock.
    """
    target = registry.cpu_target
    flags = compiler.Flags()
    target.options.parse_as_flags(flags, {"fastmath": set(fastmath), "error_model": error_model})
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = False
    flags.no_compile = True  # machine code is graphc's to make
    flags.enable_pyobject = False
    flags.no_rewrites = True  # array expressions and the like: kernels have none, and looking for them takes an eighth
    library = _PlainLibrary(target.target_context.codegen(), function.__qualname__)
    with _remembered_calls(target.typing_context):
        lowered = compiler.compile_extra(
            target.typing_context, target.target_context, function, _SIGNATURE, types.void, flags, {}, library
        )
    module = library._final_module
    for used in dict.fromkeys(library._linking_libraries):
        module.link_in(used._get_module_for_linking(), preserve=True)
    return module, lowered.fndesc.llvm_cfunc_wrapper_name


#: what calls of functions with scalars give, by function and types
_calls: dict[tuple[Any, tuple[Any, ...]], Any] = {}


@contextmanager
def _remembered_calls(context: Any) -> Iterator[None]:
    """Inside the block, Numba remembers what `int64 + int64` is.

    It tries all that `+` could be, arrays included, at each of the hundreds of places of a kernel, for a sixth of its
    time. For scalars the answer depends on nothing but their types.
    """
    asked = context.resolve_function_type

    def resolve(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        scalars = all(isinstance(a, types.Number | types.Boolean) for a in arguments)
        if named or not scalars or not isinstance(function, types.Function):
            return asked(function, arguments, named)
        found = _calls.get((function, arguments))
        if found is None:
            found = asked(function, arguments, named)
            if found is not None:
                _calls[function, arguments] = found
        return found

    context.resolve_function_type = resolve
    try:
        yield
    finally:
        del context.resolve_function_type
