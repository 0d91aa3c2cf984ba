"""What a compiled model depends on besides the model: graphc itself, the packages it stands on, the processor.

The kernels' cache names all of that exactly, by asking LLVM and reading graphc's sources. A stored model is looked for in
every process that starts, in a few milliseconds and without LLVM, so that this asks for less and errs on the side of a
difference: sources are told apart by size and time of their last change, as Python does for its own compiled files;
packages by the name of their installation; the processor by what the operating system says of it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import sys
from collections.abc import Iterator

import graphc

__all__ = ["fingerprint"]

#: packages that decide what is compiled, or how
_PACKAGES = ("llvmlite", "ml_dtypes", "numba", "numpy", "onnx")
#: variables of the environment that say how and where to work, not what comes out; every other GRAPHC_... counts
_NO_MATTER = frozenset(
    f"GRAPHC_{name}"
    for name in ("CACHE", "CACHE_MB", "CACHE_MODELS_MB", "COMPILE_JOBS", "MODELS", "SPIN_US", "THREADS", "TRACEBACK")
)
#: what /proc/cpuinfo says of a processor on x86 and on ARM; the rest numbers it or changes from one look to the next
_OF_PROCESSOR = frozenset(
    [
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "cpu cores", "cache size"),
        *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    ]
)
_CACHES = "/sys/devices/system/cpu/cpu0/cache"


@functools.cache
def fingerprint() -> str:
    """Everything besides model and options that decides what a model compiles to, as a digest in hexadecimal.

    The environment counts as it is when this is first asked, like the machine that kernels are made for."""
    chosen = sorted((n, v) for n, v in os.environ.items() if n.startswith("GRAPHC_") and n not in _NO_MATTER)
    return hashlib.sha256("\n".join([_installation(), _processor(), repr(chosen)]).encode()).hexdigest()


@functools.cache
def _installation() -> str:
    """Python, the packages, and graphc's own sources."""
    lines = [f"{sys.implementation.cache_tag} {sys.version} {platform.machine()}"]
    lines += [_package(name) for name in _PACKAGES]
    for folder in sorted({os.path.realpath(p) for p in _folders()}):
        lines += sorted(_files(folder, ""))
    return "\n".join(lines)


def _package(name: str) -> str:
    """The installed version of a package, without importing it or reading its metadata."""
    from importlib.util import find_spec

    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return f"{name} is missing"
    base = os.path.dirname(os.path.dirname(spec.origin))
    prefix = f"{name}-"
    installed = [n for n in _listing(base) if n.startswith(prefix) and n.endswith((".dist-info", ".egg-info"))]
    if len(installed) == 1:
        return installed[0]
    status = os.stat(spec.origin)  # installed in some other way: what changes with it
    return f"{name} {spec.origin} {status.st_size} {status.st_mtime_ns}"


@functools.cache
def _listing(folder: str) -> list[str]:
    return os.listdir(folder)


def _folders() -> Iterator[str]:
    """Where graphc's sources are: one folder, or in a checkout several beside each other."""
    for part in graphc.__path__:
        if os.path.isfile(os.path.join(part, "__init__.py")):
            yield part
        else:  # the checkout, which holds other things too
            yield from (os.path.join(part, name) for name in ("frontends", "passes", "runtime"))


def _files(folder: str, inside: str) -> Iterator[str]:
    """Name, size and time of the last change of each source below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                status = entry.stat()
                yield f"{inside}{entry.name} {status.st_size} {status.st_mtime_ns}"
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _files(entry.path, f"{inside}{entry.name}/")


@functools.cache
def _processor() -> str:
    """The processor, its features and its caches."""
    lines = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():  # the next one is described from here on
                    break
                if line.partition(":")[0].strip() in _OF_PROCESSOR:
                    lines.append(line.strip())
    except OSError:
        pass
    if not lines:  # no Linux: ask LLVM, which takes longer
        from graphc.codegen.cpu.compile import Target

        lines.append(str(Target.host()))
    with contextlib.suppress(OSError):
        for entry in sorted(os.listdir(_CACHES)):
            for name in ("type", "level", "size"):
                with contextlib.suppress(OSError), open(f"{_CACHES}/{entry}/{name}", encoding="utf-8") as file:
                    lines.append(file.read().strip())
    return "\n".join(lines)
