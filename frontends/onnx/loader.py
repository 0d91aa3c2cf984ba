"""From a path, bytes, a file object or a ModelProto to a checked model.

Only the protobuf parser sees the raw file. The checks here are in Python on purpose: onnx's own checker and shape
inference are native code that a hostile file can crash. What is checked: the versions, that every name is made once and
before it is read, and that local functions do not call each other in a circle. Operators are the importer's business.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from graphc.errors import ModelError
from graphc.frontends.onnx.external import is_external, location_of
from graphc.frontends.onnx.tensors import decode_sparse, decode_tensor
from graphc.ir.graph import Literal

__all__ = [
    "FunctionKey",
    "ModelSource",
    "OnnxModel",
    "domain_of",
    "external_files",
    "load_model",
    "read_opsets",
    "subgraphs_of",
]

ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | io.IOBase | ModelProto | OnnxModel"
#: domain, name, overload
FunctionKey: TypeAlias = tuple[str, str, str]

OLDEST_IR = 3
OLDEST_OPSET = 1  # importers cover opset 7 up, and most operators of older ones that mean the same
_LARGEST = (1 << 31) - 1  # protobuf messages have 32-bit signed lengths


@dataclass(eq=False)
class OnnxModel:
    """A checked model and the arrays of its tensors, decoded once however often the model is imported.

    `folder` is where external data may lie, None when the model did not come from a file. `opsets` maps each domain
    ("" for ONNX's own) to the imported version.
    """

    proto: ModelProto
    folder: Path | None
    opsets: Mapping[str, int]
    functions: Mapping[FunctionKey, FunctionProto]
    # by id of the message; the message is kept with its array so that the id stays its own
    _arrays: dict[int, tuple[object, Literal]] = field(default_factory=dict, repr=False)
    _computed: WeakValueDictionary[object, Literal] = field(default_factory=WeakValueDictionary, repr=False)

    def literal(self, tensor: TensorProto | SparseTensorProto, name: str = "") -> Literal:
        """The tensor's array as a graph literal, the same object each time."""
        entry = self._arrays.get(id(tensor))
        if entry is None:
            if isinstance(tensor, SparseTensorProto):
                array = decode_sparse(tensor, self.folder)
                name = name or tensor.values.name
            else:
                array = decode_tensor(tensor, self.folder)
                name = name or tensor.name
            entry = self._arrays[id(tensor)] = (tensor, Literal(array, name))
        return entry[1]

    def computed(self, array: np.ndarray) -> Literal:
        """A literal for an array that an importer worked out, the same object for the same content."""
        key = (array.dtype.str, array.shape, array.tobytes() if array.dtype != object else tuple(array.ravel()))
        return self._computed.setdefault(key, Literal(array))


def domain_of(text: str) -> str:
    """A domain in its short spelling: "ai.onnx" and "" are one."""
    return "" if text == "ai.onnx" else text


def load_model(source: ModelSource, base: str | os.PathLike[str] | None = None) -> OnnxModel:
    """Read and check a model.

    `base` is the folder for external data; for a path it defaults to the file's folder, otherwise there is none.
    Raises ModelError when the source is not an ONNX model that can be imported, UnsafeModelError (a ModelError) when
    its external data lie where they must not.
    """
    if isinstance(source, OnnxModel):
        return source
    folder = Path(base) if base is not None else None
    if isinstance(source, ModelProto):
        proto, what = source, "the model"
    else:
        data, what, parent = _bytes_of(source)
        folder = folder or parent
        proto = _parse(data, what)
    opsets = _check_versions(proto, what)
    functions = _check_functions(proto, what)
    if not proto.HasField("graph"):
        raise ModelError(f"{what} holds no graph")
    _check_graph(proto.graph, f"{what}, graph {proto.graph.name!r}")
    return OnnxModel(proto, folder, opsets, functions)


def _bytes_of(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | io.IOBase,
) -> tuple[bytes, str, Path | None]:
    """The bytes of a source, what to call it in messages, and the folder it lies in."""
    if isinstance(source, bytes | bytearray | memoryview):
        data, what, folder = bytes(source), "the model", None
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        what, folder = f"{str(path)!r}", path.parent
        try:
            if path.is_dir():
                raise ModelError(f"{what} is a folder; give the path of an .onnx file")
            size = path.stat().st_size
            if size > _LARGEST:
                raise ModelError(
                    f"{what} has {size} bytes; an ONNX file has less than 2 GiB, with larger weights in external data"
                )
            data = path.read_bytes()
        except FileNotFoundError:
            raise ModelError(f"there is no file {what}") from None
        except (OSError, ValueError) as e:
            if isinstance(e, ModelError):
                raise
            raise ModelError(f"{what} cannot be read: {getattr(e, 'strerror', None) or e}") from None
    elif hasattr(source, "read"):
        data, what, folder = source.read(), "the model", None
        if not isinstance(data, bytes):
            raise ModelError("the model's file object gives text; open the file in binary mode")
    else:
        raise ModelError(
            f"a model is a path, bytes, a binary file object or an onnx.ModelProto, not {type(source).__name__}"
        )
    if len(data) > _LARGEST:
        raise ModelError(
            f"{what} has {len(data)} bytes; an ONNX model has less than 2 GiB and keeps larger weights in external data"
        )
    return data, what, folder


def _parse(data: bytes, what: str) -> ModelProto:
    if not data:
        raise ModelError(f"{what} is empty")
    if data.startswith(b"version https://git-lfs"):
        raise ModelError(f"{what} is a Git LFS pointer, not the model itself; run `git lfs pull`")
    try:
        proto = ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError):
        raise ModelError(f"{what} is not an ONNX model, or is cut short: it does not parse as a ModelProto") from None
    if not proto.ir_version and not proto.HasField("graph"):
        raise ModelError(f"{what} is not an ONNX model: it has neither an IR version nor a graph")
    return proto


def _check_versions(proto: ModelProto, what: str) -> dict[str, int]:
    if not OLDEST_IR <= proto.ir_version <= onnx.IR_VERSION:
        raise ModelError(f"{what} has IR version {proto.ir_version}; supported are {OLDEST_IR} to {onnx.IR_VERSION}")
    if not proto.opset_import:
        raise ModelError(f"{what} does not say which operator set it uses (no opset_import)")
    return read_opsets(proto.opset_import, what)


def read_opsets(imports: Iterable[onnx.OperatorSetIdProto], what: str) -> dict[str, int]:
    """The imported operator sets by domain, checked. Raises ModelError for versions that are not supported."""
    opsets: dict[str, int] = {}
    newest = onnx.defs.onnx_opset_version()
    for entry in imports:
        domain = domain_of(entry.domain)
        if opsets.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                f"{what} imports two versions of the operator set {domain or 'ai.onnx'!r}: "
                f"{opsets[domain]} and {entry.version}"
            )
        if domain == "" and not OLDEST_OPSET <= entry.version <= newest:
            raise ModelError(f"{what} uses opset {entry.version}; supported are {OLDEST_OPSET} to {newest}")
        if entry.version < 1:
            raise ModelError(f"{what} uses version {entry.version} of the operator set {domain!r}")
    return opsets


def subgraphs_of(node: NodeProto) -> list[GraphProto]:
    """The graphs among the node's attributes."""
    found: list[GraphProto] = []
    for a in node.attribute:
        if a.HasField("g"):
            found.append(a.g)
        found += a.graphs
    return found


def _label(node: NodeProto, index: int) -> str:
    return repr(node.name) if node.name else f"{index} ({node.op_type})"


def external_files(model: OnnxModel) -> tuple[str, ...]:
    """The files, as they are named, that tensors of the model lie in: sorted, none for most models."""
    graphs, nodes = [model.proto.graph], [n for f in model.proto.functions for n in f.node]
    tensors: list[TensorProto] = []
    while graphs or nodes:
        while graphs:
            graph = graphs.pop()
            tensors += graph.initializer
            tensors += [t for s in graph.sparse_initializer for t in (s.values, s.indices)]
            nodes += graph.node
        node = nodes.pop() if nodes else None
        for attribute in node.attribute if node is not None else ():
            graphs += [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs
            tensors += [attribute.t, *attribute.tensors]
            tensors += [t for s in (attribute.sparse_tensor, *attribute.sparse_tensors) for t in (s.values, s.indices)]
    return tuple(sorted({location_of(t) for t in tensors if is_external(t)}))


def _check_functions(proto: ModelProto, what: str) -> dict[FunctionKey, FunctionProto]:
    functions: dict[FunctionKey, FunctionProto] = {}
    for f in proto.functions:
        key = (domain_of(f.domain), f.name, f.overload)
        where = f"{what}, function {f.domain}.{f.name}"
        if key in functions:
            raise ModelError(f"{where} is defined twice")
        functions[key] = f
        read_opsets(f.opset_import, where)
        _check_body(f.node, [*f.input], [*f.output], where, frozenset())
    _check_calls(functions, what)
    return functions


def _check_calls(functions: Mapping[FunctionKey, FunctionProto], what: str) -> None:
    """No function may call itself, directly or through others."""
    calls: dict[FunctionKey, list[FunctionKey]] = {}
    for key, f in functions.items():
        nodes, called = [*f.node], []
        while nodes:
            node = nodes.pop()
            callee = (domain_of(node.domain), node.op_type, node.overload)
            if callee in functions:
                called.append(callee)
            for g in subgraphs_of(node):
                nodes += g.node
        calls[key] = called
    done: set[FunctionKey] = set()
    for root in functions:
        path: dict[FunctionKey, None] = {}
        stack: list[tuple[FunctionKey, bool]] = [(root, False)]
        while stack:
            key, finished = stack.pop()
            if finished:
                del path[key]
                done.add(key)
            elif key in path:
                names = [k[1] for k in path]
                circle = " -> ".join([*names[names.index(key[1]) :], key[1]])
                raise ModelError(f"{what}: the functions {circle} call each other in a circle")
            elif key not in done:
                path[key] = None
                stack += [(key, True), *((c, False) for c in calls[key])]


def _check_graph(graph: GraphProto, where: str, outer: frozenset[str] = frozenset()) -> None:
    """Names of a graph: made once, before they are read. A subgraph may read the names of the graphs around it."""
    inputs = [v.name for v in graph.input]
    initializers = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    for kind, names in (("input", inputs), ("initializer", initializers)):
        if "" in names:
            raise ModelError(f"{where}: an {kind} has no name")
        if len(set(names)) != len(names):
            raise ModelError(f"{where}: {_first_repeated(names)!r} is an {kind} twice")
    _check_body(graph.node, [*dict.fromkeys(inputs + initializers)], [v.name for v in graph.output], where, outer)


def _check_text(names: Iterable[object], where: str) -> None:
    """protobuf gives bytes for text that is not UTF-8."""
    for name in names:
        if not isinstance(name, str):
            raise ModelError(f"{where}: the name {name!r} is not UTF-8")


def _first_repeated(names: Sequence[str]) -> str:
    return next(n for k, n in enumerate(names) if n in names[:k])


def _check_body(
    nodes: Sequence[NodeProto], given: list[str], outputs: list[str], where: str, outer: frozenset[str]
) -> None:
    known = set(given)
    if len(known) != len(given):
        raise ModelError(f"{where}: {_first_repeated(given)!r} is an input twice")
    _check_text(given + outputs, where)
    made: dict[str, int] | None = None
    for k, node in enumerate(nodes):
        _check_text((node.op_type, node.domain, node.name, *node.input, *node.output), where)
        for name in node.input:
            if name and name not in known and name not in outer:
                if made is None:  # only the failing case needs to know where each name is made
                    made = {n: j for j, other in enumerate(nodes) for n in other.output}
                if name in made:
                    maker = _label(nodes[made[name]], made[name])
                    raise ModelError(
                        f"{where}: node {_label(node, k)} reads {name!r} before node {maker} makes it: "
                        "the nodes form a cycle or are not in order"
                    )
                raise ModelError(f"{where}: node {_label(node, k)} reads {name!r}, which nothing makes")
        subgraphs = subgraphs_of(node)
        if subgraphs:
            visible = outer | known
            for g in subgraphs:
                _check_graph(g, f"{where}, node {_label(node, k)}, graph {g.name!r}", visible)
        if len({a.name for a in node.attribute}) != len(node.attribute):
            raise ModelError(
                f"{where}: node {_label(node, k)} has the attribute "
                f"{_first_repeated([a.name for a in node.attribute])!r} twice"
            )
        for name in node.output:
            if name:
                if name in known:
                    raise ModelError(f"{where}: {name!r} is made twice, the second time by node {_label(node, k)}")
                known.add(name)
    for name in outputs:
        if name not in known and name not in outer:
            raise ModelError(f"{where}: the output {name!r} is never made")
