"""The graph: immutable, interned nodes. What a program computes, never how.

`make` is the only way to a node, with `remake` and `remake_bodies` for a node like another one. It infers the result
types (`remake` takes them over, for operands of the same types), so an ill-typed node cannot exist, and it interns: the
same operation on the same operands *is* the same node, which makes common-subexpression elimination free and lets a
pass say "nothing changed" by returning the same object.

A node's source location is no part of what it is: two equal nodes from two places are one node.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from graphc.errors import GraphcError, GraphTypeError
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.types import TensorType, Type, fresh_renames

if TYPE_CHECKING:
    from graphc.ops.spec import OpSpec

__all__ = [
    "Graph",
    "Literal",
    "Node",
    "UnusedNames",
    "Value",
    "constant",
    "input_value",
    "location",
    "location_of",
    "make",
    "remake_bodies",
    "substitute",
]


class Value(NamedTuple):
    """One result of a node.

    A plain pair, so that graphs are cheap; it has no operators (see `_OPERATORS`): `ops.add(a, b)`, not `a + b`.
    """

    node: Node
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a value

    @property
    def type(self) -> Type:
        return self.node.types[self.index]

    # Most values are tensors; these three spare the reader a cast at every use.
    @property
    def tensor(self) -> TensorType:
        """The type, which must be a tensor's. Raises GraphTypeError when the value is a sequence or an optional."""
        t = self.type
        if not isinstance(t, TensorType):
            raise GraphTypeError(
                f"{self.node.op.name} gives {t} where a tensor is needed{describe_location(self.node)}"
            )
        return t

    @property
    def dtype(self) -> DType:
        t = self.node.types[self.index]
        return t.dtype if type(t) is TensorType else self.tensor.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        t = self.node.types[self.index]
        return t.shape if type(t) is TensorType else self.tensor.shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def literal(self) -> np.ndarray | None:
        """The array when this is a constant, else None."""
        return self.node.attrs["data"].array if self.node.op.name == "constant" else None

    def __repr__(self) -> str:
        return f"<{self.node.op.name}#{self.index}: {self.type}>"


#: operators by their methods' names, and the operations to write instead. A tuple has some of them, and would do what
#: nobody wants of a value: `g + g` would be a tuple of four
_OPERATORS = {
    "add": ("+", "add"), "sub": ("-", "sub"), "mul": ("*", "mul"), "truediv": ("/", "div"),
    "floordiv": ("//", "floordiv"), "mod": ("%", "mod"), "pow": ("**", "pow"), "matmul": ("@", "dot"),
    "lt": ("<", "lt"), "le": ("<=", "le"), "gt": (">", "gt"), "ge": (">=", "ge"), "neg": ("-", "neg"),
}  # fmt: skip


def _no_operator(symbol: str, operation: str) -> Callable[..., Any]:
    def refuse(self: Value, *others: object) -> Any:
        operands = "x, y" if others else "x"
        raise TypeError(
            f"the value {self!r} of a graph has no operator {symbol}: write ops.{operation}({operands}), with "
            "`from graphc import ops`"
        )

    return refuse


for _method, (_symbol, _operation) in _OPERATORS.items():
    for _side in ("", "r"):  # comparisons have no reflected methods of such names; nobody calls these
        setattr(Value, f"__{_side}{_method}__", _no_operator(_symbol, _operation))
setattr(Value, "__array_ufunc__", None)  # noqa: B010  (an array's operators ask the value's, which raise)

#: makes a Value without the function that a NamedTuple puts before it
_new_tuple = tuple.__new__


class Node:
    """An operation applied to values. Made by `make`; equality is identity."""

    __slots__ = ("__weakref__", "attrs", "identity", "inputs", "level", "op", "types", "where")
    op: OpSpec
    inputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    #: what tells the attributes from others, see `_identity`
    identity: tuple[object, ...]
    types: tuple[Type, ...]
    #: the deepest `level` of the inputs that it depends on, -1 when it depends on none (see `input_value`)
    level: int
    #: the first place that is known to have made it, see `location_of`
    where: tuple[str, ...]

    def __init__(
        self,
        op: OpSpec,
        inputs: tuple[Value, ...],
        attrs: Mapping[str, Any],
        types: tuple[Type, ...],
        identity: tuple[object, ...] = (),
        where: tuple[str, ...] = (),
    ) -> None:
        self.op, self.inputs, self.attrs, self.types, self.identity, self.where = (
            op, inputs, attrs, types, identity, where
        )  # fmt: skip
        level = -1
        for v in inputs:
            if v.node.level > level:
                level = v.node.level
        self.level = level if op.name != "input" else attrs.get("level", 0)

    @property
    def outputs(self) -> tuple[Value, ...]:
        if len(self.types) == 1:  # nearly always, and asked for by every sweep
            return (_new_tuple(Value, (self, 0)),)
        return tuple(Value(self, i) for i in range(len(self.types)))

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs among the attributes (control flow, fusions), in the attributes' order."""
        return tuple(v for v in self.attrs.values() if isinstance(v, Graph))

    def __repr__(self) -> str:
        return f"<{self.op.name} -> {', '.join(map(str, self.types))}>"


class Literal:
    """A constant's array, held beside the graph.

    Arrays of up to 256 elements compare by content, so equal small constants are one node; a larger array is equal
    only to itself. The array is made read-only. `name` is what to call it in text and in errors.
    """

    __slots__ = ("__weakref__", "_key", "array", "dtype", "name")
    BY_CONTENT = 256

    def __init__(self, array: np.ndarray, name: str = "", dtype: DType | None = None) -> None:
        array = np.asarray(array)
        self.dtype = dtype or dtype_of(array)
        if array.dtype != self.dtype.numpy:
            array = array.astype(self.dtype.numpy)
        # small arrays are equal by content, so the content must not change with the caller's array
        view = array.copy() if array.size <= self.BY_CONTENT else array.view()
        view.flags.writeable = False
        self.array, self.name = view, name
        self._key: object = id(self)
        if array.size <= self.BY_CONTENT:
            content: object = tuple(array.ravel().tolist()) if self.dtype.kind == "string" else array.tobytes()
            self._key = (self.dtype.name, array.shape, content)

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.array.shape)

    def digest(self) -> str:
        """A hash of the content, for cache keys."""
        h = hashlib.sha256(f"{self.dtype}{self.array.shape}".encode())
        h.update(
            repr(self.array.tolist()).encode()
            if self.dtype.kind == "string"
            else np.ascontiguousarray(self.array).tobytes()
        )
        return h.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Literal({self.name or '?'}: {self.type})"


_interned: WeakValueDictionary[object, Node] = WeakValueDictionary()
_intern_lock = threading.Lock()
_here: ContextVar[tuple[str, ...]] = ContextVar("graphc_location", default=())


class location:  # noqa: N801  (reads as the function it might be; passes enter it at every node, so it is light)
    """`with location("conv1"):` new nodes made inside are said to come from there (an ONNX node, a user's line)."""

    __slots__ = ("_token", "_where")

    def __init__(self, *where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        self._token = _here.set(self._where)

    def __exit__(self, *exception: object) -> None:
        _here.reset(self._token)


def location_of(node: Node) -> tuple[str, ...]:
    """Where the node came from, () when nobody said. A fused node names every place it was made of."""
    return node.where


def describe_location(node: Node) -> str:
    """`" (at conv1, relu1)"` for messages, or an empty string."""
    return f" (at {', '.join(node.where)})" if node.where else ""


#: types of attributes that are as they should be: nearly all are of these
_FROZEN = frozenset((int, str, bool, float, DType))
_INT = frozenset((int,))


def freeze(value: Any) -> Any:
    """An attribute's value as something immutable and hashable: lists become tuples, NumPy scalars Python's."""
    kind = type(value)
    if kind in _FROZEN or (kind is tuple and _FROZEN.issuperset(map(type, value))):
        return value
    if isinstance(value, list | tuple):
        return tuple(freeze(v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def _identity(attr: Any) -> object:
    """What tells attributes apart: 1 == 1.0 == True and 0.0 == -0.0 in Python, but not in a program."""
    kind = type(attr)
    if kind is tuple:
        return attr if _INT.issuperset(map(type, attr)) else (kind, *map(_identity, attr))
    return (kind, attr.hex() if kind is float else attr)


def make(op: OpSpec, *inputs: Value, **attrs: Any) -> tuple[Value, ...]:
    """The node for `op` on `inputs`, new or already known, as its output values.

    Raises GraphTypeError when the operands' types or the attributes do not fit the operation.
    """
    frozen = {k: freeze(attrs[k]) for k in sorted(attrs)} if attrs else attrs
    return _intern(op, inputs, frozen, None)


def _intern(
    op: OpSpec,
    inputs: tuple[Value, ...],
    attrs: Mapping[str, Any],
    types: tuple[Type, ...] | None,
    identity: tuple[object, ...] | None = None,
    where: tuple[str, ...] | None = None,
) -> tuple[Value, ...]:
    """The node with these frozen attributes; its types are inferred unless they are known already."""
    if identity is None:
        identity = tuple([(k, _identity(v)) for k, v in attrs.items()]) if attrs else ()
    if where is None:
        where = _here.get()
    key = (op.name, inputs, identity)
    node = _interned.get(key)
    if node is None:
        node = Node(op, inputs, attrs, _inferred(op, inputs, attrs, where) if types is None else types, identity, where)
        with _intern_lock:
            known = _interned.get(key)
            if known is None:
                _interned[key] = node
            else:
                node = known
    return (_new_tuple(Value, (node, 0)),) if len(node.types) == 1 else node.outputs


def _misfit(op: OpSpec, operands: Sequence[Type], attrs: Mapping[str, Any], error: TypeError) -> Exception:
    """What to raise for a TypeError of `infer`: when it was called with what it does not take, that is said clearly."""
    try:
        inspect.signature(op.infer).bind(*operands, **attrs)
    except TypeError as mismatch:
        named = f" and {', '.join(attrs)}" if attrs else ""
        nothing, signature = inspect.Parameter.empty, inspect.signature(op.infer)
        names = [p.replace(annotation=nothing) for p in signature.parameters.values()]
        takes = signature.replace(parameters=names, return_annotation=nothing)
        return GraphTypeError(f"{op.name} was given {len(operands)} operands{named}: {mismatch}; it takes {takes}")
    return error


def _inferred(
    op: OpSpec, inputs: tuple[Value, ...], attrs: Mapping[str, Any], where: tuple[str, ...]
) -> tuple[Type, ...]:
    """The types of the results; errors say where the node comes from."""
    operands = [v.type for v in inputs]
    try:
        try:
            found = op.infer(*operands, **attrs)
        except TypeError as e:
            raise _misfit(op, operands, attrs, e) from None
    except GraphcError as e:
        if where and not getattr(e, "located", False):
            e.located = True  # type: ignore[attr-defined]
            e.args = (f"{e.args[0]} (at {', '.join(where)})", *e.args[1:])
        raise
    return found if type(found) is tuple else (found,)


def input_value(name: str, type: Type, level: int = 0) -> Value:  # noqa: A002
    """A graph's input, identified by name and type.

    While functions are traced, a body that is not closed yet may read the values around it. `level` then tells its own
    inputs (how deep it is nested) from those of the traces around it; a closed graph has inputs of level 0 alone.
    """
    from graphc.ops.leaf import input as op

    return make(op, name=name, type=type, **({"level": level} if level else {}))[0]


def constant(array: Any, dtype: object = None, name: str = "") -> Value:
    """A constant from an array, a number or nested lists; `dtype` overrides NumPy's choice."""
    from graphc.ops.leaf import constant as op

    if isinstance(array, Literal):
        return make(op, data=array)[0]
    wanted = dtype_of(dtype) if dtype is not None else None
    return make(op, data=Literal(np.asarray(array, wanted.numpy if wanted else None), name, wanted))[0]


class Graph:
    """A closed program: input values, output values and all between. Immutable; equal when inputs and outputs are.

    `output_names` names the outputs for callers; inputs carry their own names.
    """

    __slots__ = ("__dict__", "__weakref__", "inputs", "output_names", "outputs")
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...]

    def __init__(
        self, inputs: Iterable[Value], outputs: Iterable[Value], output_names: Iterable[str] | None = None
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.output_names = (
            tuple(output_names) if output_names is not None else tuple(f"out{i}" for i in range(len(self.outputs)))
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that an output needs, and the inputs, producers first. Dead nodes are simply unreachable."""
        return tuple(toposort((*self.inputs, *self.outputs)))

    @cached_property
    def users(self) -> dict[Value, tuple[Node, ...]]:
        """The nodes that read each value (a node that reads it twice stands twice). Being an output is not a use."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in node.inputs:
                users.setdefault(v, []).append(node)
        return {v: tuple(ns) for v, ns in users.items()}

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(v.node.attrs["name"] for v in self.inputs)

    def with_outputs(self, outputs: Sequence[Value]) -> Graph:
        return Graph(self.inputs, outputs, self.output_names if len(outputs) == len(self.outputs) else None)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Graph)
            and self.inputs == other.inputs
            and self.outputs == other.outputs
            and self.output_names == other.output_names
        )

    @cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.outputs))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        from graphc.ir.text import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        ins = ", ".join(f"{n}: {v.type}" for n, v in zip(self.input_names, self.inputs, strict=True))
        return f"<Graph ({ins}) -> ({', '.join(str(v.type) for v in self.outputs)}), {len(self.nodes)} nodes>"


def toposort(roots: Iterable[Value], level: int = -1) -> list[Node]:
    """Nodes that `roots` depend on, producers first, without those below `level` (see `input_value`).

    Iterative: a deep chain must not overflow the stack.
    """
    done: dict[Node, None] = {}
    opened: set[Node] = set()
    stack = [v.node for v in roots]
    stack.reverse()
    while stack:
        node = stack.pop()
        if node in done:
            continue
        if node in opened or not node.inputs:
            done[node] = None
            continue
        opened.add(node)
        stack.append(node)  # again, behind what it reads
        stack += [v.node for v in node.inputs[::-1] if v.node not in done and v.node.level >= level]
    return list(done)


def rebuild(graph: Graph, transform: Callable[[Node, tuple[Value, ...]], Sequence[Value]]) -> Graph:
    """The graph with every node replaced by what `transform(node, new_inputs)` gives, producers first.

    The graph's inputs stay inputs: `transform` sees them too and may give inputs of other types. Returns the same
    object when nothing changed. New nodes inherit the location of the node they replace.
    """
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        with location(*location_of(node)):
            outs = transform(node, tuple(new[v] for v in node.inputs))
        new.update(zip(node.outputs, outs, strict=True))
    inputs, outputs = tuple(new[v] for v in graph.inputs), tuple(new[v] for v in graph.outputs)
    if inputs == graph.inputs and outputs == graph.outputs:
        return graph
    return Graph(inputs, outputs, graph.output_names)


def remake(node: Node, inputs: tuple[Value, ...], where: tuple[str, ...] | None = None) -> tuple[Value, ...]:
    """The same operation on other inputs (the very same node when the inputs are).

    Inputs of the same types give results of the same types. They are taken over rather than inferred again: a size
    that only the run can tell keeps its name, which other nodes may mention. A new node comes from the current
    location, or from `where`, for which a pass gives `node.where`.
    """
    if inputs == node.inputs:
        return node.outputs
    for new, old in zip(inputs, node.inputs, strict=True):
        if new is not old and (a := new.type) is not (b := old.type) and a != b:
            with location(*(_here.get() if where is None else where)):
                return make(node.op, *inputs, **node.attrs)
    return _intern(node.op, inputs, node.attrs, node.types, node.identity, where)


def remake_bodies(
    node: Node, inputs: tuple[Value, ...], bodies: Mapping[str, Any], types: tuple[Type, ...] | None = None
) -> tuple[Value, ...]:
    """The same control flow with other bodies (by attribute), perhaps on fewer captures and with other attributes.

    Sizes that only the run can tell keep their names: those in `types`, or without it those of the node when the bodies
    give results of the types that the old ones gave. In all else the types are what inference gives.
    """
    attrs = dict(sorted({**node.attrs, **bodies}.items()))
    if types is None and all(
        [v.type for v in node.attrs[name].outputs] == [v.type for v in body.outputs] for name, body in bodies.items()
    ):
        types = node.types
    inferred = _inferred(node.op, inputs, attrs, _here.get())
    if types is None or fresh_renames(types, inferred, [v.type for v in inputs]) is None:
        types = inferred
    return _intern(node.op, inputs, attrs, types)


def inline(graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """The outputs of `graph` with `arguments` put in place of its inputs: a call, expanded."""
    new = dict(zip(graph.inputs, arguments, strict=True))
    for node in graph.nodes:
        if node.outputs and node.outputs[0] in new:
            continue
        with location(*location_of(node)):
            new.update(zip(node.outputs, remake(node, tuple(new[v] for v in node.inputs)), strict=True))
    return tuple(new[v] for v in graph.outputs)


def substitute(values: Iterable[Value], replaced: Mapping[Value, Value]) -> list[Value]:
    """`values` computed from others in the place of some; what does not depend on those stays the same node."""
    values, new = tuple(values), dict(replaced)
    stack = [(v, False) for v in reversed(values)]
    while stack:
        v, inputs_done = stack.pop()
        if v in new:
            continue
        if inputs_done:
            with location(*location_of(v.node)):
                made = remake(v.node, tuple(new[u] for u in v.node.inputs))
            for old, again in zip(v.node.outputs, made, strict=True):
                new.setdefault(old, again)  # of several results some may be replaced
        else:
            stack.append((v, True))
            stack += [(u, False) for u in reversed(v.node.inputs)]
    return [new[v] for v in values]


class UnusedNames:
    """Names for new inputs of a graph, unlike those it has: inputs of one name and type are one."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def __call__(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
