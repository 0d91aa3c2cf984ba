"""`compile` and `load`: from anything that is a model to an executable or a graph."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.errors import InputError, ModelError, NeedsValue, OptionError
from graphc.ir.types import TensorType
from graphc.options import FUNCTION_OPTIONS, Options
from graphc.runtime.cache import model_cache
from graphc.runtime.executable import Executable, GraphSource, Port, Source
from graphc.runtime.stored import Store

if TYPE_CHECKING:
    from graphc.frontends.onnx import OnnxModel
    from graphc.ir.graph import Graph
    from graphc.frontends.python.model import ModelFunction

__all__ = ["compile", "function", "load", "resolve", "source_of"]

#: `onnx:NAME` finds a model among these, the topologies that the onnx package ships with generated weights
_SHIPPED = "backend/test/data/light"


def compile(
    model: Any = None,
    *,
    donate_argnums: int | Sequence[int] = (),
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    **options: Any,
) -> Any:
    """Compile a model: a path, `onnx:NAME`, the bytes of a file, a ModelProto, a Graph, or a Python function.

    A model gives an `Executable`. A Python function gives a `CompiledFunction`, which traces and compiles when it is
    called, once for each signature of arguments; `donate_argnums`, `static_argnums` and `static_argnames` are for it
    (see there). Without a model this is a decorator: `@graphc.compile(threads=1)`.

    Options are those of `graphc.options.Options`: target, threads, precision, level, disable, progress.
    A model whose input shapes are all fixed is compiled at once; otherwise the first call with new shapes compiles
    for them, and `Executable.prepare(**shapes)` does so ahead of time.

    Raises ModelError or UnsafeModelError for a file that is not a sound model, UnsupportedError listing everything
    the model needs and graphc lacks, OptionError for a bad option.
    """
    chosen = Options.of(**options)
    given = (donate_argnums, static_argnums, static_argnames)
    functional: dict[str, Any] = dict(zip(FUNCTION_OPTIONS, given, strict=True))
    if model is None:
        return lambda function: compile(function, **functional, **options)
    if callable(model) and not isinstance(model, Executable):
        from graphc.runtime.function import CompiledFunction

        return CompiledFunction(model, chosen, **functional)
    for name, value in functional.items():
        if value != ():
            raise OptionError(f"{name} is for Python functions; {type(model).__name__} has no argument numbers")
    executable = _executable(model, chosen)
    if all(isinstance(p.type, TensorType) and p.type.is_static for p in executable.inputs):
        try:
            executable.prepare()
        except NeedsValue:  # sizes depend on a value, which the first call brings
            executable.source.check()
    else:
        executable.source.check()
    return executable


def _executable(model: Any, options: Options) -> Executable:
    """An executable of the model, which takes what it can from a former process's work (`graphc.runtime.stored`)."""
    cache = model_cache()
    if cache.directory is None or not isinstance(model, str | os.PathLike | bytes):
        return Executable(source_of(model), options)
    file = model if isinstance(model, bytes) else resolve(model)
    digest = _digest(file)
    store = Store(digest, options, cache) if digest else None
    record = store.record() if store is not None else None
    if record is not None:
        source = _StoredSource(record.inputs, record.outputs, _name(model), lambda: _unchanged(file, digest))
        return Executable(source, options, store, record.static)
    loaded = _ModelSource(_proto(file), _name(model))
    # what the file named may change without it, and what was read just now may not be what was read before
    own = not loaded.has_external_data and _digest(file) == digest
    return Executable(loaded, options, store if own else None)


def _digest(file: bytes | Path) -> str:
    """The sha256 of a model's bytes; empty when they cannot be read, which loading them will say better."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _unchanged(file: bytes | Path, digest: str) -> OnnxModel:
    """The model, read again. Raises ModelError when it is not what it was."""
    model = _proto(file)
    if _digest(file) != digest:
        raise ModelError(f"{str(file)!r} has changed since it was compiled; compile it again")
    return model


def function(model: Any) -> ModelFunction:
    """A model as a Python function that can be called, composed, traced and differentiated; takes what `load` takes.

    See `graphc.frontends.python.model.ModelFunction`.
    """
    from graphc.frontends.python.model import ModelFunction

    return ModelFunction(source_of(model), lambda: load(model))


def load(model: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """The graph of a model as it is imported, before any pass; sizes the file leaves open are symbolic unless given.

    Takes what `compile` takes, and raises what it raises for a bad model.
    """
    from graphc.ir.graph import Graph

    if isinstance(model, Graph):
        return model
    if callable(model) and not isinstance(model, Executable):
        raise ModelError(
            f"load reads models, and {_called(model)} is a Python function: its graph is "
            "graphc.trace(f, ...), for arguments like those it is to be called with"
        )
    from graphc.frontends.onnx import import_model

    return import_model(_proto(model), shapes=shapes)


def _called(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def resolve(model: str | os.PathLike[str]) -> Path:
    """The file for a path or for `onnx:NAME` (`onnx:resnet50`). Raises ModelError when there is none."""
    text = os.fspath(model)
    if not text.startswith("onnx:"):
        return Path(text)
    from importlib.util import find_spec

    spec = find_spec("onnx")  # to import it takes longer than a warm start
    if spec is None or spec.origin is None:
        raise ModelError(f"{text} is a model of the onnx package, which is not installed")
    folder = Path(spec.origin).parent / _SHIPPED
    known = {p.stem.removeprefix("light_").removeprefix("bvlc_"): p for p in sorted(folder.glob("light_*.onnx"))}
    name = text.removeprefix("onnx:")
    if name not in known:
        raise ModelError(f"no model {name!r} comes with the onnx package; there are {', '.join(known)}")
    return known[name]


def _proto(model: Any) -> OnnxModel:
    from graphc.frontends.onnx import load_model

    if isinstance(model, str | os.PathLike):
        model = resolve(model)
    return load_model(model)


def source_of(model: Any) -> Source:
    """A model as something that gives graphs, read and checked but not compiled. Takes what `compile` takes."""
    from graphc.ir.graph import Graph

    if isinstance(model, Executable):
        return model.source
    if isinstance(model, Graph):
        return GraphSource(model)
    if callable(model):
        raise InputError(
            f"a model is needed (a path, bytes, a ModelProto or a Graph), and {_called(model)} is a Python function: "
            "call it as it is, or compile it with graphc.compile(f)"
        )
    return _ModelSource(_proto(model), _name(model))


def _name(model: Any) -> str:
    """What to call a model in messages."""
    return Path(os.fspath(model)).name if isinstance(model, str | os.PathLike) else "model"


class _ModelSource:
    """An ONNX model as a source: importing it is a function of the inputs' types."""

    def __init__(self, model: OnnxModel, name: str) -> None:
        from graphc.frontends.onnx import signature

        self.name, self._model = name, model
        inputs, outputs = signature(model)
        self.inputs = tuple(Port(*p) for p in inputs)
        self.outputs = tuple(Port(*p) for p in outputs)

    @property
    def has_external_data(self) -> bool:
        """Whether the model's bytes are not all of it."""
        from graphc.frontends.onnx import has_external_data

        return has_external_data(self._model)

    def check(self) -> None:
        from graphc.frontends.onnx import check_operators

        check_operators(self._model)

    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph:
        from graphc.frontends.onnx import argument_type, import_model

        types = {p.name: argument_type(arguments[p.name], p.type) for p in self.inputs}
        return import_model(self._model, shapes=types, values={name: arguments[name] for name in known})


class _StoredSource:
    """A model that a former process has compiled: it is read only when it has to be compiled again, for other shapes."""

    def __init__(
        self, inputs: tuple[Port, ...], outputs: tuple[Port, ...], name: str, read: Callable[[], OnnxModel]
    ) -> None:
        self.name, self.inputs, self.outputs, self._read = name, inputs, outputs, read
        self._source: _ModelSource | None = None

    def check(self) -> None:
        """What was compiled once holds nothing but known operations."""

    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph:
        if self._source is None:
            self._source = _ModelSource(self._read(), self.name)
        return self._source.graph(arguments, known)
