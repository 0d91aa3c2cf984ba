"""The registry of importers: a function for each ONNX operator and the versions of it that the function understands.

    @importer("Softmax", 13)
    def softmax(c: Context, x: Value) -> Value:
        return functions.softmax(x, axis=c.int("axis", -1))

An importer turns one ONNX node into operations of the graph IR. Of an operator's importers the newest counts that is
not newer than the model's opset.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import onnx

from graphc.ir.graph import Value

__all__ = ["Importer", "ImporterFunction", "domains", "find", "importer", "load_importers", "schema_of", "versions"]

Result: TypeAlias = "Value | Sequence[Value | None] | None"
ImporterFunction: TypeAlias = Callable[..., Result]


@dataclass(frozen=True, slots=True)
class Importer:
    """A registered function and how many operands it takes; `most` None means any number."""

    since: int
    function: ImporterFunction
    least: int
    most: int | None


_REGISTRY: dict[tuple[str, str], list[Importer]] = {}


def importer(op: str, *since: int, domain: str = "") -> Callable[[ImporterFunction], ImporterFunction]:
    """Register a function as the importer of the operator's versions `since`, and of the opsets up to the next version.

    The function is called with a `Context` and the operands; absent optional operands are None. It returns the value,
    or a sequence with one entry an output.
    """

    if not since:
        raise ValueError(f"importer({op!r}): the opset versions since which it holds are missing")

    def enter(function: ImporterFunction) -> ImporterFunction:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        positional = [p for p in parameters if p.kind is not p.VAR_POSITIONAL]
        least = sum(p.default is p.empty for p in positional)
        entries = _REGISTRY.setdefault((domain, op), [])
        for version in since:
            if any(e.since == version for e in entries):
                raise ValueError(f"{domain}.{op} version {version} has two importers")
            entries.append(Importer(version, function, least, None if variadic else len(positional)))
        entries.sort(key=lambda e: -e.since)
        find.cache_clear()  # a model may have asked for it before
        return function

    return enter


def load_importers() -> None:
    from graphc.frontends.onnx import operators  # noqa: F401  (registers them)


@lru_cache(maxsize=4096)
def find(domain: str, op: str, opset: int) -> Importer | None:
    return next((e for e in _REGISTRY.get((domain, op), ()) if e.since <= opset), None)


@lru_cache(maxsize=4096)
def schema_of(domain: str, op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None


def versions(domain: str, op: str) -> tuple[int, ...]:
    """The operator's versions that have an importer, newest first."""
    return tuple(e.since for e in _REGISTRY.get((domain, op), ()))


def domains() -> frozenset[str]:
    """The operator sets that importers know."""
    return frozenset(domain for domain, _ in _REGISTRY)
