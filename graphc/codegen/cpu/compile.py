"""Kernel source text to object code, through Numba and LLVM.

Every native function of graphc, the plan's driver included, has one C signature:

    void kernel(int64_t *block, int64_t first, int64_t last, int64_t scratch)

A kernel arrives as the text of a Python module that defines a function of a known name. Numba types and lowers it; from
there graphc drives LLVM itself, for three reasons: the object gets one exported symbol, named by content (Numba's own
names carry a per-process counter, and objects of two processes can clash: numba#10486); everything else becomes
private before optimisation; and the code is emitted once, position independent, so that the same object is loaded by a
warm start, kept in the cache, and linked into an exported library.

Importing this module is cheap: Numba is imported by the first compilation.
"""

from __future__ import annotations

import functools
import hashlib
import json
import linecache
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.codegen.cpu.objectfile import external_symbols, needs_numba
from graphc.errors import CompileError

__all__ = [
    "FASTMATH",
    "KEY_IN_SYMBOL",
    "KernelObject",
    "Target",
    "compile_assembly",
    "compile_source",
    "deciding_sources",
    "kernel_key",
    "target_features",
]

KEY_IN_SYMBOL = 20
"""Digits of a kernel's key that its symbol ends with."""

# NaN and infinity keep their meaning, so neither nnan nor ninf is here; nor arcp, or a division by what a loop does not
# change is a multiplication with its reciprocal, and rounds a quotient like 127.49999 to another integer.
FASTMATH = frozenset({"nsz", "contract", "afn", "reassoc"})
_ERROR_MODEL = "numpy"  # the python model tests every division for zero, which keeps LLVM from vectorising
_BAKED_ADDRESS = "numba.dynamic.globals"  # how Numba names a global that holds an address of this process
_PUBLIC_NAME = re.compile(r"[^0-9A-Za-z_]")


@dataclass(frozen=True)
class Target:
    """The processor that code is made for, in LLVM's names."""

    cpu: str
    features: str
    triple: str

    @staticmethod
    @functools.cache
    def host() -> Target:
        """The processor this process runs on."""
        import llvmlite.binding as llvm

        return Target(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvm.get_process_triple())


@dataclass(frozen=True)
class KernelObject:
    """One compiled kernel: a relocatable object that exports `symbol`, with the kernel ABI."""

    name: str
    symbol: str
    code: bytes

    def to_bytes(self) -> bytes:
        """A line of JSON, then the object: nothing in it runs when it is read back."""
        return json.dumps({"name": self.name, "symbol": self.symbol}).encode() + b"\n" + self.code

    @staticmethod
    def from_bytes(data: bytes) -> KernelObject:
        """The inverse of `to_bytes`. Raises ValueError when `data` is something else."""
        header, separator, code = data.partition(b"\n")
        fields = json.loads(header) if separator else None
        if not isinstance(fields, dict) or not all(isinstance(fields.get(k), str) for k in ("name", "symbol")):
            raise ValueError("not a kernel object")
        return KernelObject(fields["name"], fields["symbol"], code)


def kernel_key(name: str, text: str, target: Target | None = None) -> str:
    """A sha256 hex digest of everything that decides the object code of this kernel.

    That is: the text, the sources of graphc's code generator (the intrinsics a text imports live there) and of the kernels
    that it prints, the versions of Numba, llvmlite and Python, the processor and its features, and the compile flags.
    """
    target = target or Target.host()
    digest = hashlib.sha256()
    for part in (_toolchain(), target.cpu, target.features, target.triple, name, text):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.encode())
    return digest.hexdigest()


def compile_source(name: str, text: str, target: Target | None = None) -> KernelObject:
    """Compile the function `name` that the module `text` defines.

    Args:
        name: the function's name in `text`; its four parameters are (block, first, last, scratch).
        text: Python source that Numba's nopython mode accepts. Tracebacks show its lines.
        target: the processor to compile for; this one when not given.

    Raises:
        CompileError: the text does not define `name`, Numba refuses it, or it allocates or raises.
    """
    target = target or Target.host()
    symbol = f"graphc_{_PUBLIC_NAME.sub('_', name)}_{kernel_key(name, text, target)[:KEY_IN_SYMBOL]}"
    module, machine = _optimised_module(name, text, symbol, target)
    code: bytes = machine.emit_object(module)
    missing = needs_numba(external_symbols(code) or ())
    if missing:
        raise CompileError(
            f"kernel {name!r} needs {', '.join(missing)} of Numba's runtime; "
            "a kernel may not allocate memory, raise, or use Python objects: pass it pointers and scratch memory"
        )
    return KernelObject(name, symbol, code)


def compile_assembly(name: str, text: str, target: Target | None = None) -> str:
    """The assembly that `compile_source` would turn into the object, for people and for tests to read."""
    module, machine = _optimised_module(name, text, _PUBLIC_NAME.sub("_", name), target or Target.host())
    assembly: str = machine.emit_assembly(module)
    return assembly


def _optimised_module(name: str, text: str, symbol: str, target: Target) -> tuple[Any, Any]:
    import llvmlite.binding as llvm
    from numba.core.compiler_lock import global_compiler_lock

    from graphc.codegen.cpu.front import lower

    function = _define(name, text)
    with global_compiler_lock, _compiling_for(target):
        try:
            module, entry = lower(function, FASTMATH, _ERROR_MODEL)
        except Exception as error:
            raise CompileError(f"Numba cannot compile kernel {name!r}: {error}") from error
        for defined in module.functions:
            if not defined.is_declaration and defined.name != entry:
                defined.linkage = "internal"
        for variable in module.global_variables:
            # Numba's copies of addresses stay as they are: private ones would be folded into the code, unseen below.
            if not variable.is_declaration and not variable.name.startswith(_BAKED_ADDRESS):
                variable.linkage = "internal"
        module.get_function(entry).name = symbol
        machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
        )
        _optimise(module, machine)
    if any(variable.name.startswith(_BAKED_ADDRESS) for variable in module.global_variables):
        raise CompileError(f"kernel {name!r} bakes in an address of this process; pass it through the argument block")
    return module, machine


def _define(name: str, text: str) -> Callable[..., None]:
    filename = f"<graphc kernel {name} {hashlib.sha256(text.encode()).hexdigest()[:12]}>"
    # Python, Numba and debuggers find the lines of generated code here; no modification time means: never stale.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    scope: dict[str, Any] = {"__name__": f"graphc.generated.{_PUBLIC_NAME.sub('_', name)}"}
    try:
        exec(compile(text, filename, "exec"), scope)
    except Exception as error:
        raise CompileError(f"the source text of kernel {name!r} does not run: {error!r}") from error
    function = scope.get(name)
    if not callable(function):
        raise CompileError(f"the source text of kernel {name!r} defines no function of that name")
    return function


def _optimise(module: Any, machine: Any) -> None:
    """Variables to registers; inline cheaply, so that Numba's reference counts meet and cancel; optimise in full."""
    import llvmlite.binding as llvm

    for speed in (0, 3):
        options = llvm.create_pipeline_tuning_options(speed_level=speed)
        options.loop_vectorization = options.slp_vectorization = speed > 0
        builder = llvm.create_pass_builder(machine, options)
        if speed == 0:
            # Without this start the contraction kernels' loops keep a few addresses on the stack.
            registers = llvm.create_new_module_pass_manager()
            registers.add_sroa_pass()
            registers.add_simplify_cfg_pass()
            registers.run(module, builder)
        passes = builder.getModulePassManager()
        if speed == 0:
            # Loops in rotated form, or the vectoriser trips over their phi nodes.
            passes.add_loop_rotate_pass()
            passes.add_instruction_combine_pass()
            passes.add_jump_threading_pass()
        passes.add_refprune_pass()
        if speed > 0:
            passes.add_global_dead_code_eliminate_pass()
        passes.run(module, builder)


_target: ContextVar[Target | None] = ContextVar("graphc_target", default=None)


@contextmanager
def _compiling_for(target: Target) -> Iterator[None]:
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


def target_features() -> frozenset[str]:
    """What the processor can that a kernel is being compiled for, in LLVM's names; for intrinsics to ask."""
    target = _target.get()
    return frozenset(f[1:] for f in target.features.split(",") if f.startswith("+")) if target else frozenset()


def deciding_sources() -> list[Path]:
    """The files of graphc that decide what code a kernel's text becomes: an intrinsic asks a variant what to emit."""
    package = Path(__file__).parents[2]
    folders = [package / name for name in ("codegen", "kernels", "ir")]
    beside = [package / "ops" / name for name in ("layout.py", "minimal.py", "reduce.py", "strassen.py")]
    return sorted([*beside, *(path for folder in folders for path in folder.rglob("*.py") if "cuda" not in path.parts)])


@functools.cache
def _toolchain() -> str:
    """Everything besides text and processor that decides the code, as text."""
    from importlib.metadata import version

    sources = hashlib.sha256()
    for path in deciding_sources():
        sources.update(path.read_bytes())
    return "\n".join(
        [
            f"python {platform.python_implementation()} {platform.python_version()}",
            f"numba {version('numba')} llvmlite {version('llvmlite')}",
            f"codegen {sources.hexdigest()}",
            f"flags {' '.join(sorted(FASTMATH))} {_ERROR_MODEL} pic small",
        ]
    )
