"""Numba's half of a compilation: a Python function, typed and lowered to LLVM IR.

Everything that graphc uses of Numba's internals is here. Importing this module imports Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, codegen, compiler, registry, typed_passes, untyped_passes
from numba.core.compiler_machinery import PassManager
from numba.core.targetconfig import ConfigStack

__all__ = ["add_function", "lower"]

_SIGNATURE = (types.CPointer(types.int64), types.int64, types.int64, types.int64)


class _PlainLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]
    """Collects a function's IR as it is.

    Numba optimises each function on its own before it optimises all together. graphc's passes follow in any case;
    without that round a contraction kernel compiles in four fifths of the time, to code as good.
    """

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.functions: dict[tuple[Any, tuple[Any, ...]], Any] = {}  # descriptors, by function and types

    def add_llvm_module(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        self._final_module.link_in(ll_module)


class _KernelCompiler(compiler.CompilerBase):  # type: ignore[misc]
    """The passes of Numba's pipeline that generated kernels need, in Numba's order.

    The others look for what kernels do not have (closures to inline, `with` blocks, array expressions, literals), in an
    eighth of the time.
    """

    def define_pipelines(self) -> list[PassManager]:
        pipeline = PassManager("graphc kernel")
        for step, what in (
            (untyped_passes.TranslateByteCode, "bytecode to Numba's IR"),
            (untyped_passes.FixupArgs, "arguments"),
            (untyped_passes.IRProcessing, "lifetimes of variables"),
            (untyped_passes.RewriteDynamicRaises, "raise, so that its refusal says what it is"),
            (untyped_passes.ReconstructSSA, "static single assignment"),
            (typed_passes.NopythonTypeInference, "types"),
            (typed_passes.PreLowerStripPhis, "phi nodes to assignments"),
            (typed_passes.NoPythonSupportedFeatureValidation, "what has no native form"),
            (typed_passes.IRLegalization, "deletions of variables"),
            (typed_passes.AnnotateTypes, "types at variables"),
            (typed_passes.NativeLowering, "LLVM IR"),
            (typed_passes.NoPythonBackend, "the result"),
        ):
            pipeline.add_pass(step, what)
        pipeline.finalize()
        return [pipeline]


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
    library = _PlainLibrary(target.target_context.codegen(), function.__qualname__)
    typing, context = target.typing_context, target.target_context
    with _remembered_calls(typing):
        lowered = compiler.compile_extra(
            typing, context, function, _SIGNATURE, types.void, flags, {}, library, _KernelCompiler
        )
    module = library._final_module
    for used in dict.fromkeys(library._linking_libraries):
        module.link_in(used._get_module_for_linking(), preserve=True)
    return module, lowered.fndesc.llvm_cfunc_wrapper_name


def add_function(
    context: Any, b: ir.IRBuilder, function: Callable[..., None], kinds: tuple[Any, ...]
) -> Callable[[list[ir.Value]], None]:
    """Lower a plain function, which returns nothing, into the library of the kernel that is being lowered, once for these
    types of arguments. Gives what emits a call of it, which LLVM will inline."""
    library = context.active_code_library
    descriptor = library.functions.get((function, kinds))
    if descriptor is None:
        flags = ConfigStack().top().copy()
        flags.no_cfunc_wrapper = True
        typing = registry.cpu_target.typing_context
        lowered = compiler.compile_extra(
            typing, context, function, kinds, types.void, flags, {}, library, _KernelCompiler
        )
        descriptor = library.functions[function, kinds] = lowered.fndesc
        library._final_module.get_function(descriptor.mangled_name).add_function_attribute("alwaysinline")

    callee = context.declare_function(b.module, descriptor)
    # Numba's functions also take where to put what they return and raise; these do neither.
    unused = [cgutils.alloca_once(b, kind.pointee) for kind in callee.function_type.args[:2]]
    return lambda arguments: b.call(callee, [*unused, *arguments])


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
