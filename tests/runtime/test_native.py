"""Source text to running code: compiling, keeping, loading, and saying what is wrong."""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.codegen.cpu import workers
from graphc.codegen.cpu.compile import (
    KernelObject,
    Target,
    compile_assembly,
    compile_source,
    deciding_sources,
    kernel_key,
)
from graphc.codegen.cpu.objectfile import external_symbols, needs_numba
from graphc.codegen.cpu.workers import compile_all
from graphc.errors import CompileError, OptionError
from graphc.runtime import native
from graphc.runtime.cache import Cache
from graphc.runtime.driver import driver
from graphc.runtime.native import Library, kernel_addresses

TEXT = """
import math
from graphc.codegen.cpu.atomics import cells


def powers(block, first, last, scratch):
    out = cells(block[0])
    for task in range(first, last):
        out[task] = int(math.exp(task * 0.6931471805599453) + 0.5)


def table(block, first, last, scratch):
    # Floating constants land in another section than the code.
    out = cells(block[0])
    for task in range(first, last):
        out[task] = int((task + 7.25) * 1.5)
"""


def call(address: int, count: int) -> list[int]:
    out = np.zeros(count, np.int64)
    block = np.array([out.ctypes.data], np.int64)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)
    entry(block.ctypes.data, 0, count, 0)
    return [int(v) for v in out]


def test_a_kernel_compiles_loads_and_runs() -> None:
    objects = [compile_source(name, TEXT) for name in ("powers", "table")]
    addresses = Library().load(objects)
    assert call(addresses[0], 8) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert call(addresses[1], 7) == [10, 12, 13, 15, 16, 18, 19]


def test_an_object_exports_one_symbol_named_by_content() -> None:
    first, second = compile_source("powers", TEXT), compile_source("powers", TEXT)
    assert first.symbol == second.symbol
    assert re.fullmatch(r"graphc_powers_[0-9a-f]{20}", first.symbol)
    assert compile_source("powers", TEXT + "\n").symbol != first.symbol
    assert set(external_symbols(first.code) or ()) <= {"exp"}


def test_the_key_depends_on_all_that_decides_the_code() -> None:
    host = Target.host()
    keys = {
        kernel_key("powers", TEXT),
        kernel_key("table", TEXT),
        kernel_key("powers", TEXT + " "),
        kernel_key("powers", TEXT, dataclasses.replace(host, cpu="generic")),
        kernel_key("powers", TEXT, dataclasses.replace(host, features="")),
    }
    assert len(keys) == 5
    assert kernel_key("powers", TEXT) == kernel_key("powers", TEXT, host)


def test_the_key_covers_whatever_the_code_generator_imports() -> None:
    known = {path.resolve() for path in deciding_sources()}
    package = Path(graphc.__file__).parent
    for path in (package / "codegen").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("graphc."):
                module = package.joinpath(*node.module.split(".")[1:])  # type: ignore[union-attr]
                found = [f for f in (module.with_suffix(".py"), module / "__init__.py") if f.exists()]
                assert "cuda" in path.parts or node.module == "graphc.errors" or known.issuperset(found), (
                    path,
                    node.module,
                )


def test_objects_survive_bytes() -> None:
    kernel = KernelObject("name", "symbol", b"\x00\n\xff{}\n")
    assert KernelObject.from_bytes(kernel.to_bytes()) == kernel
    for bad in (b"", b"x", b"[]\nabc", b'{"name": 1, "symbol": "s"}\nabc', b'{"name": "n"}\n'):
        with pytest.raises(ValueError, match=r"not a kernel object|Expecting value|Extra data"):
            KernelObject.from_bytes(bad)


def test_objects_are_position_independent() -> None:
    """The same object loads twice, at two places, and both run: its constants came along."""
    kernel = compile_source("table", TEXT)
    libraries = [Library(), Library()]
    addresses = [library.load([kernel])[0] for library in libraries]
    assert addresses[0] != addresses[1]
    assert call(addresses[0], 4) == call(addresses[1], 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(block, first, last, scratch):\n    pass\n", "defines no function of that name"),
        ("def kernel(block, first last):\n    pass\n", "does not run: SyntaxError"),
        ("import no_such_module\n", "does not run: ModuleNotFoundError"),
        (
            "def kernel(block, first, last, scratch):\n    return unknown_name(first)\n",
            "Numba cannot compile kernel 'kernel'",
        ),
        ("def kernel(block, first, last, scratch):\n    raise ValueError('x')\n", "may not allocate memory, raise"),
        (
            "import numpy as np\ndef kernel(block, first, last, scratch):\n    block[0] = np.arange(last).sum()\n",
            "may not allocate memory, raise",
        ),
    ],
)
def test_what_is_not_a_kernel_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=re.escape(message)):
        compile_source("kernel", text)


def test_tracebacks_show_generated_lines() -> None:
    text = "x = 1\ny = x / 0  # a line of generated code\n"
    with pytest.raises(CompileError) as caught:
        compile_source("kernel", text)
    assert caught.value.__cause__ is not None
    shown = "".join(traceback.format_exception(caught.value.__cause__))
    assert "a line of generated code" in shown


def test_assembly_can_be_read() -> None:
    assert "powers:" in compile_assembly("powers", TEXT)


EXTERNAL = """
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def call_it(typingctx):
    def codegen(context, builder, signature, arguments):
        builder.call(ir.Function(builder.module, ir.FunctionType(ir.VoidType(), []), "NAME"), [])
        return context.get_dummy_value()

    return types.void(), codegen


def kernel(block, first, last, scratch):
    call_it()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF")
def test_a_symbol_that_is_nowhere_is_named() -> None:
    """LLVM would end the process."""
    kernel = compile_source("kernel", EXTERNAL.replace("NAME", "no_such_function_anywhere"))
    assert external_symbols(kernel.code) == ("no_such_function_anywhere",)
    library = Library()
    with pytest.raises(CompileError, match="kernel 'kernel' calls no_such_function_anywhere"):
        library.load([kernel])
    # and the library still works
    assert call(library.load([compile_source("powers", TEXT)])[0], 3) == [1, 2, 4]


def test_an_address_of_this_process_is_refused() -> None:
    """The object would go into the cache, and jump anywhere in another process."""
    text = (
        "import ctypes\n"
        "absolute = ctypes.CDLL(None).labs\n"
        "absolute.argtypes, absolute.restype = [ctypes.c_long], ctypes.c_long\n"
        "def kernel(block, first, last, scratch):\n    block[0] = absolute(block[0])\n"
    )
    with pytest.raises(CompileError, match="bakes in an address"):
        compile_source("kernel", text)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF")
def test_a_symbol_of_numbas_runtime_is_refused_at_compile_time() -> None:
    with pytest.raises(CompileError, match="NRT_Free of Numba's runtime"):
        compile_source("kernel", EXTERNAL.replace("NAME", "NRT_Free"))
    assert needs_numba(("expf", "NRT_Allocate", "numba_gil_ensure", "PyErr_Clear", "memcpy")) == (
        "NRT_Allocate",
        "numba_gil_ensure",
        "PyErr_Clear",
    )


def test_damaged_object_code_is_an_error() -> None:
    kernel = compile_source("powers", TEXT)
    for code in (kernel.code[:300], b"", b"\x7fELF\x02\x01" + bytes(100), kernel.code[: len(kernel.code) // 2]):
        with pytest.raises(CompileError, match="'powers'"):
            Library().load([dataclasses.replace(kernel, code=code)])


def test_addresses_come_from_process_then_cache_then_compiler(tmp_path: Path) -> None:
    driver()  # loaded, or it would be compiled along
    cache = Cache(tmp_path)
    sources = [("powers", TEXT + "# here"), ("table", TEXT + "# here"), ("powers", TEXT + "# here")]
    seen: list[tuple[int, int]] = []
    first = kernel_addresses(sources, cache=cache, progress=lambda *p: seen.append(p))
    assert first[0] == first[2] != first[1]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert cache.size()[0] == 2
    assert kernel_addresses(sources, cache=cache, progress=lambda *p: pytest.fail("compiled again")) == first


def test_a_damaged_cache_entry_is_compiled_again(tmp_path: Path) -> None:
    text = TEXT + "# damaged"
    cache = Cache(tmp_path)
    cache.put(kernel_key("powers", text), b"something else under the key")
    (address,) = kernel_addresses([("powers", text)], cache=cache)
    assert call(address, 3) == [1, 2, 4]
    stored = cache.get(kernel_key("powers", text))
    assert stored is not None
    assert KernelObject.from_bytes(stored).name == "powers"


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_native import TEXT, call
from graphc.runtime import native
from graphc.runtime.cache import Cache
from graphc.runtime.native import kernel_addresses
powers, table = kernel_addresses([("powers", TEXT), ("table", TEXT)], cache=Cache(Path(sys.argv[1])))
assert call(powers, 5) == [1, 2, 4, 8, 16]
assert call(table, 2) == [10, 12]
if sys.argv[3:] == ["warm"]:
    assert "numba" not in sys.modules
"""


def test_two_processes_compile_the_same_kernels_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", SCRIPT, str(tmp_path), str(Path(__file__).parent)]
    runs = [subprocess.Popen(command) for _ in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert subprocess.run([*command, "warm"], timeout=60, check=False).returncode == 0
    assert Cache(tmp_path).size()[0] == 3  # and the driver


@pytest.mark.parametrize("helpers", [0, 2])
def test_many_kernels_compile_in_processes(helpers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a text prints must not end up between the answers.
    sources = [("powers", f"print('noise')\n{TEXT}\n# {i}") for i in range(3)]
    done = dict(compile_all(sources, helpers))
    assert sorted(done) == [0, 1, 2]
    addresses = Library().load([done[i] for i in range(3)])
    assert all(call(address, 4) == [1, 2, 4, 8] for address in addresses)


@pytest.mark.parametrize("helpers", [0, 2])
def test_errors_come_back_from_processes(helpers: int) -> None:
    with pytest.raises(CompileError, match="defines no function"):
        list(compile_all([("powers", TEXT), ("kernel", "x = 1"), ("table", TEXT)], helpers))


def test_a_helper_that_dies_is_an_error() -> None:
    with pytest.raises(CompileError, match="helper process that compiled kernel 'kernel' ended"):
        list(compile_all([("kernel", "import os; os._exit(3)")], 1))


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_native import TEXT
from graphc.runtime import native
from graphc.runtime.cache import Cache
from graphc.runtime.native import kernel_addresses
sources = [("powers", TEXT + f"# {i}") for i in range(40)]
kernel_addresses(sources, cache=Cache(Path(sys.argv[1])), progress=lambda done, of: print(done, flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("helpers", ["0", "2"])
def test_ctrl_c_leaves_whole_kernels_and_no_noise(tmp_path: Path, helpers: str) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRAPHC_COMPILE_JOBS": helpers},
    )
    assert run.stdout is not None
    while run.stdout.readline() != "3\n":
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert 3 <= len(files) < 40
    cache = Cache(tmp_path)
    for path in files:
        stored = cache.get(path.parent.name + path.name)
        assert stored is not None
        KernelObject.from_bytes(stored)


def test_helpers_that_are_ready_are_used_or_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_COMPILE_JOBS", "2")
    workers.get_ready(("powers", TEXT))
    workers.get_ready(("powers", TEXT))
    teams = list(workers._ready)
    assert [helper.source for team in teams for helper in team.helpers] == [("powers", TEXT), None]
    really, started = workers._start, []
    monkeypatch.setattr(workers, "_start", lambda n: started.append(n) or really(n))
    assert [kernel.name for _, kernel in compile_all([("powers", TEXT)], 1)] == ["powers"]
    assert started == [-1]
    assert not workers._ready
    assert {team.process.returncode for team in teams} == {0}
    workers.get_ready(("powers", TEXT))
    teams = list(workers._ready)
    workers.dismiss()
    assert not workers._ready
    assert {team.process.returncode for team in teams} == {-signal.SIGKILL}


@pytest.mark.skipif(sys.platform != "linux", reason="helpers fork on Linux alone")
@pytest.mark.parametrize("all_of_them", [True, False])
def test_no_helper_is_left_behind(all_of_them: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    teams: list[Any] = []
    really = workers._start
    monkeypatch.setattr(workers, "_start", lambda n: [teams.append(team) or team for team in really(n)])
    compiling = compile_all([("powers", f"{TEXT}\n# {i}") for i in range(6)], 3)
    for _ in range(6 if all_of_them else 2):
        next(compiling)
    if all_of_them:
        assert next(compiling, None) is None
    else:
        compiling.close()
    (team,) = teams
    assert len(team.helpers) == 3
    assert team.process.returncode == (0 if all_of_them else -signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _members(team.process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _members(team.process.pid)


def _members(group: int) -> list[str]:
    """The processes of a group that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(its) == group and state != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize("wanted", [["powers"], ["powers", "other"], ["other"]], ids=" ".join)
def test_what_a_helper_has_begun_is_not_compiled_again(wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_COMPILE_JOBS", "1")
    workers.get_ready(("powers", TEXT))
    asked: list[str] = []
    really = workers._Helper.begin
    monkeypatch.setattr(workers._Helper, "begin", lambda self, source: asked.append(source[0]) or really(self, source))
    sources = [(name, TEXT.replace("powers", name)) for name in wanted]
    assert {index: kernel.name for index, kernel in compile_all(sources, 1)} == dict(enumerate(wanted))
    assert asked == [name for name in wanted if name != "powers"]


def test_helpers_wait_only_where_nothing_was_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_COMPILE_JOBS", "1")
    monkeypatch.setattr(native, "library", Library)  # nothing is loaded yet
    warm = Cache(tmp_path / "warm")
    warm.put(native.kernel_key(*native.DRIVER), b"whatever")
    monkeypatch.setattr(native, "default_cache", lambda: warm)
    with native.helpers_at_hand():
        assert not workers._ready
    monkeypatch.setattr(native, "default_cache", lambda: Cache(tmp_path / "cold"))
    with native.helpers_at_hand():
        assert len(workers._ready) == 1
    assert not workers._ready


def test_helpers_do_not_import_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numba.py").write_text("raise SystemExit('a stranger's module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    ((_, kernel),) = compile_all([("powers", TEXT)], 1)
    assert kernel.name == "powers"


def test_a_machine_that_starts_no_processes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(CompileError, match="GRAPHC_COMPILE_JOBS=0 compiles in this process"):
        list(compile_all([("powers", TEXT)], 2))


def test_the_number_of_helpers_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_COMPILE_JOBS", "x")
    with pytest.raises(OptionError, match="GRAPHC_COMPILE_JOBS is 'x'"):
        list(compile_all([("powers", TEXT)]))
