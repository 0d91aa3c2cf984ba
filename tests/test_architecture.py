"""The shape of the project: which layer may import which, what importing graphc costs, and what an install contains."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Layers from the bottom up; a module imports from its own part and from parts of lower layers. Parts that share a
#: layer do not know each other.
LAYERS = [
    {"errors"},
    {"__init__", "options"},
    {"ir"},
    {"ops"},
    {"kernels"},
    {"autodiff"},
    {"passes", "frontends"},
    {"codegen"},
    {"runtime"},
    {"api"},
    {"saving"},
    {"measure"},
    {"backend", "cli", "testing"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

#: Imports that point upwards, inside functions only, each with its reason.
EXCEPTIONS = {
    ("graphc.ir.graph", "graphc.ops.leaf"): "a graph's inputs and constants are operations too",
    ("graphc.ir.text", "graphc.ops"): "the parser looks operations up by name",
    ("graphc.ops.control", "graphc.autodiff.control"): "the gradient of an operation with bodies is a walk over them",
}

#: What a warm run does without: importing any of these takes longer than the run.
HEAVY = ("numba", "onnxruntime", "torch", "rich")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package: its dotted name and its file."""
    for folder, package in (
        ("graphc", "graphc"),
        ("frontends", "graphc.frontends"),
        ("passes", "graphc.passes"),
        ("runtime", "graphc.runtime"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(p for p in parts if p != "__init__"))), path


def imports(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    """What a module imports from graphc, and whether it does so when it is itself imported (not lazily)."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}: relative imports hide what is imported"
                yield from ((f"{child.module}.{a.name}", not lazy) for a in child.names)
            elif isinstance(child, ast.Import):
                yield from ((a.name, not lazy) for a in child.names)
            yield from visit(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from ((target, eager) for target, eager in visit(tree, False) if target.split(".")[0] == "graphc")


def part_of(name: str) -> str:
    """The part of the package that a module belongs to."""
    part = ([*name.split("."), "__init__"])[1]
    return part if part in LEVEL else "__init__"


def violations(source: list[tuple[str, Path]]) -> list[str]:
    """Imports against the direction of the layers, as sentences."""
    names = {name for name, _ in source}
    found = []
    for name, path in source:
        for target, eager in imports(path, name):
            module = target if target in names else target.rpartition(".")[0]
            if (name, module) in EXCEPTIONS and not eager:
                continue
            here, there = part_of(name), part_of(target)
            if there != here and LEVEL[there] >= LEVEL[here]:
                found.append(
                    f"{name} imports {module}: {here} (layer {LEVEL[here]}) from {there} (layer {LEVEL[there]})"
                )
    return found


def test_imports_point_downwards() -> None:
    assert not violations(list(modules()))


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    module = tmp_path / "wrong.py"
    module.write_text("def f():\n    from graphc.runtime.plan import Plan\n", encoding="utf-8")
    assert len(violations([("graphc.ir.wrong", module), *modules()])) == 1


def test_exceptions_are_used() -> None:
    lazy = {
        (n, t) for n, path in modules() for target, _ in imports(path, n) for t in (target, target.rpartition(".")[0])
    }
    assert set(EXCEPTIONS) <= lazy


def test_every_part_has_a_layer() -> None:
    assert {part for name, _ in modules() if (part := ([*name.split("."), "__init__"])[1]) not in LEVEL} == set()


def test_every_package_is_installed() -> None:
    """The list in pyproject.toml is complete: a forgotten package breaks an install and no editable one."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {name for name, path in modules() if path.name == "__init__.py"}
    assert set(settings["packages"]) == packages
    folders = {path.parent for name, path in modules()} - {
        path.parent for name, path in modules() if path.name == "__init__.py"
    }
    assert not folders, f"folders without __init__.py: {folders}"


def run_python(program: str) -> str:
    """What a fresh interpreter prints; -P keeps the current folder from hiding the installed graphc."""
    return subprocess.run([sys.executable, "-P", "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout


def test_importing_graphc_is_quick() -> None:
    program = "import time; t = time.perf_counter(); import graphc; print(time.perf_counter() - t)"
    assert statistics.median(float(run_python(program)) for _ in range(3)) <= 0.3


@pytest.mark.parametrize("what", ["import graphc", "from graphc import compile", "import graphc.runtime.executable"])
def test_importing_graphc_imports_nothing_heavy(what: str) -> None:
    program = f"import sys\n{what}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = run_python(program).split()
    assert "graphc" in loaded
    assert not set(HEAVY) & set(loaded)


def test_importing_graphc_alone_imports_no_dependency() -> None:
    loaded = run_python("import sys, graphc; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert not {"numpy", "onnx", "llvmlite", *HEAVY} & set(loaded)


def test_help_is_quick() -> None:
    started = time.perf_counter()
    assert "inspect" in run_python("from graphc.cli import main; main(['--help'])")
    assert time.perf_counter() - started < 2


@pytest.mark.slow
def test_a_wheel_holds_graphc_and_nothing_else(tmp_path: Path) -> None:
    """Nothing but graphc lands at the top of site-packages, and frontends/, passes/ and runtime/ land inside it."""
    import shutil
    import zipfile

    source = tmp_path / "source"  # setuptools leaves a build folder behind, which is then not ours
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns("build", ".git", "models", "*.egg-info", "__pycache__", ".*cache")
    )
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"graphc"}
    assert {
        "graphc/runtime/plan.py",
        "graphc/passes/__init__.py",
        "graphc/frontends/onnx/__init__.py",
        "graphc/py.typed",
    } <= set(names)
