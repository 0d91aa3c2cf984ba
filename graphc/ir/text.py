"""The text form of a graph: one node a line, and it parses back.

    graph(%x: float32[n, 3]) {
      %0 = constant [1.0, 2.0, 3.0] : float32[3]
      %1 = broadcast_to(%0, shape=(n, 3)) : float32[n, 3]
      %2 = add(%x, %1) : float32[n, 3]  # bias
      return %2 as "y"
    }

Values that nobody named are numbered in the order of `Graph.nodes`; every body numbers its own. Constants of up to
eight elements stand in the text, larger ones as `@name`; `constants_of` gives their data by that name. What follows
`#` is the node's source location. A dimension that is more than a bare symbol stands in braces among attributes:
`shape=(1, {2*n+1})`.

Since nodes are interned, parsing the text of a living graph gives that very graph back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from graphc.errors import GraphcError, ParseError
from graphc.ir.dims import Dim, DimLike, parse_dim, substitute
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Literal, Node, Value, constant, input_value, location, location_of, make
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type, fresh_renames, substitute_type

__all__ = ["constants_of", "parse_graph", "parse_type", "print_graph", "print_node", "value_names"]

INLINE_ELEMENTS = 8
_RESERVED = {"True", "False", "None", "inf", "nan", "graph", "literal", "sequence", "optional", "as"}


# --- printing ---------------------------------------------------------------------------------------------------


def print_graph(graph: Graph) -> str:
    """The graph as text."""
    return "\n".join(_Printer(graph).graph(graph, "")) + "\n"


def print_node(node: Node) -> str:
    """One node as a line, operands by their types: for messages."""
    operands = [f"{v.type}" for v in node.inputs]
    attrs = [
        f"{k}={'graph' if isinstance(v, Graph) else _Printer(None).attribute(v, '')}" for k, v in node.attrs.items()
    ]
    return f"{node.op.name}({', '.join(operands + attrs)})"


def constants_of(graph: Graph) -> dict[str, Literal]:
    """The data of the constants that the text names with `@`, bodies included."""
    return {name: literal for literal, name in _Printer(graph).names.items()}


def value_names(graph: Graph) -> dict[Value, str]:
    """What the text calls each value: inputs by their names, the others numbered in the order of `Graph.nodes`."""
    names: dict[Value, str] = {}
    count = 0
    for node in graph.nodes:
        if node.op.name == "input":  # one that is not among the graph's inputs is the verifier's business
            names[node.outputs[0]] = f"%{_quoted(node.attrs['name'])}"
            continue
        for v in node.outputs:
            names[v] = f"%{count}"
            count += 1
    return names


def _is_inline(literal: Literal) -> bool:
    """Whether the text can hold the data exactly (a NaN with a payload cannot)."""
    if literal.array.size > INLINE_ELEMENTS:
        return False
    try:
        return Literal(_array(_through_text(literal.array.tolist()), literal.type), dtype=literal.dtype) == literal
    except (TypeError, ValueError, OverflowError):
        return False


def _through_text(x: Any) -> Any:
    """What parsing will make of a number: the same, but every NaN is the plain one."""
    if isinstance(x, list):
        return [_through_text(v) for v in x]
    return type(x)(repr(x)) if isinstance(x, float | complex) else x


def _array(data: Any, t: TensorType) -> np.ndarray:
    """Nested lists as an array of the given type (which also gives the shape: `[]` alone would lose it)."""
    return np.array(data, t.dtype.numpy).reshape(t.static_shape)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w.]*", name) else json.dumps(name)


class _Printer:
    """Names the large constants of a graph and its bodies once, then prints."""

    def __init__(self, graph: Graph | None) -> None:
        self.names: dict[Literal, str] = {}
        taken: set[str] = set()
        pending = [graph] if graph is not None else []
        while pending:
            for node in pending.pop().nodes:
                pending += node.bodies
                for value in node.attrs.values():
                    if isinstance(value, Literal) and value not in self.names and not _is_inline(value):
                        base = name = re.sub(r"[^\w.]", "_", value.name) or "c"
                        number = 0
                        while name in taken:
                            name, number = f"{base}_{number}", number + 1
                        taken.add(name)
                        self.names[value] = name

    def graph(self, graph: Graph, indent: str) -> list[str]:
        """The lines of a graph; the first one is not indented, so that it can follow `body=`."""
        names = value_names(graph)
        lines = [f"graph({', '.join(f'{names[v]}: {self.type(v.type)}' for v in graph.inputs)}) {{"]
        computed = [node for node in graph.nodes if node.op.name != "input"]
        lines += [f"{indent}  {self.node(node, names, indent + '  ')}" for node in computed]
        results = [f"{names[v]} as {json.dumps(n)}" for v, n in zip(graph.outputs, graph.output_names, strict=True)]
        return [*lines, f"{indent}  return {', '.join(results)}".rstrip(), f"{indent}}}"]

    def node(self, node: Node, names: Mapping[Value, str], indent: str) -> str:
        if node.op.name == "constant":
            what = f"constant {self.data(node.attrs['data'])}"
        else:
            attrs = [f"{k}={self.attribute(v, indent)}" for k, v in node.attrs.items()]
            what = f"{node.op.name}({', '.join([names[v] for v in node.inputs] + attrs)})"
        results = ", ".join(names[v] for v in node.outputs)
        # a small constant is one node for everybody who ever made it: where it was first made means nothing
        shared = node.op.name == "constant" and node.attrs["data"].array.size <= Literal.BY_CONTENT
        places = () if shared else location_of(node)
        where = ", ".join(w if re.fullmatch(r'[^,"\n#]+', w) else json.dumps(w) for w in places)
        types = ", ".join(self.type(t) for t in node.types)
        return f"{results}{' = ' if results else ''}{what} : {types}" + (f"  # {where}" if where else "")

    def data(self, literal: Literal) -> str:
        if literal not in self.names and _is_inline(literal):
            return self.number(literal.array.tolist())
        return f"@{self.names.get(literal, literal.name or 'c')}"

    def number(self, x: Any) -> str:
        """A Python number, string or nested list of them; a float32 prints exactly through its float64 value."""
        if isinstance(x, list):
            return f"[{', '.join(map(self.number, x))}]"
        return json.dumps(x) if isinstance(x, str) else repr(x)

    def type(self, t: Type) -> str:
        return str(t)

    def attribute(self, value: Any, indent: str) -> str:
        match value:
            case tuple():
                inner = ", ".join(self.attribute(v, indent) for v in value)
                return f"({inner},)" if len(value) == 1 else f"({inner})"
            case Graph():
                return "\n".join(self.graph(value, indent))
            case Literal():
                return f"literal({self.type(value.type)}, {self.data(value)})"
            case Dim():
                bare = value.name is not None and value.name.isidentifier() and value.name not in _RESERVED
                return str(value) if bare and not _is_dtype(str(value)) else f"{{{value}}}"
            case DType() | TensorType() | SequenceType() | OptionalType():
                return str(value)
            case str():
                return json.dumps(value)
            case bool() | int() | float() | None:
                return repr(value)
        raise TypeError(f"an attribute of class {type(value).__name__} has no text form: {value!r}")


def _is_dtype(name: str) -> bool:
    try:
        return dtype_of(name).name == name
    except GraphcError:
        return False


# --- parsing ----------------------------------------------------------------------------------------------------


class _Reference(str):
    """The name of a constant whose data stands beside the text."""

    __slots__ = ()


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


_TOKEN = re.compile(
    r"""(?P<newline>\n)|(?P<space>[ \t\r]+)|(?P<comment>\#[^\n]*)
      |(?P<string>"(?:[^"\\\n]|\\.)*")
      |(?P<value>%(?:[\w.]+|"(?:[^"\\\n]|\\.)*"))|(?P<data>@[\w.]+)|(?P<dim>\{[^{}\n]+\})
      |(?P<number>[-+]?(?:inf|nan)j?\b|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?j?)
      |(?P<word>[A-Za-z_]\w*)|(?P<mark>//|[][(){}<>=:,+*/-])""",
    re.VERBOSE,
)


def _tokens(text: str) -> Iterator[_Token]:
    line, position = 1, 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ParseError(f"line {line}: cannot read {text[position:].splitlines()[0]!r}")
        kind, position = str(found.lastgroup), found.end()
        if kind == "newline":
            line += 1
        elif kind != "space":
            yield _Token(kind, found[0], line)
    yield _Token("end", "", line)


def parse_graph(text: str, constants: Mapping[str, Any] | None = None) -> Graph:
    """The graph that `print_graph` printed.

    `constants` gives the data of `@name` constants: arrays, or Literals (as `constants_of` returns them).
    Raises ParseError, naming the line, for anything that is not a graph or whose types do not hold.
    """
    parser = _Parser(text, constants or {})
    graph = parser.graph()
    parser.take("end")
    return graph


def parse_type(text: str) -> Type:
    """The type that `str()` of it printed. Raises ParseError."""
    parser = _Parser(text, {})
    result = parser.type()
    parser.take("end")
    return result


class _Parser:
    """Recursive descent, one token of lookahead; recursion is as deep as bodies and brackets nest."""

    def __init__(self, text: str, constants: Mapping[str, Any]) -> None:
        self.constants = constants
        self.literals: dict[str, Literal] = {}
        self.comments: dict[int, str] = {}
        self.tokens: list[_Token] = []
        for token in _tokens(text):
            if token.kind == "comment":
                self.comments[token.line] = token.text[1:].strip()
            else:
                self.tokens.append(token)
        self.position = 0
        # sizes that only the run knows get new symbols when their node is made again; the text's later uses follow
        self.renames: dict[str, DimLike] = {}

    def fail(self, message: str, token: _Token | None = None) -> NoReturn:
        raise ParseError(f"line {(token or self.next).line}: {message}")

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def take(self, kind: str, text: str | None = None) -> _Token:
        token = self.next
        if token.kind != kind or (text is not None and token.text != text):
            self.fail(f"expected {text or kind}, found {token.text or 'the end'!r}")
        self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        """Step over these tokens when they come next."""
        following = self.tokens[self.position : self.position + len(texts)]
        if tuple(t.text for t in following) != texts or any(t.kind == "string" for t in following):
            return False
        self.position += len(texts)
        return True

    def many(self, item: Callable[[], Any], end: str) -> list[Any]:
        """Items between commas up to `end`, a trailing comma allowed."""
        items: list[Any] = []
        while not self.accept(end):
            items.append(item())
            if not self.accept(","):
                self.take("mark", end)
                break
        return items

    def graph(self) -> Graph:
        self.take("word", "graph")
        self.take("mark", "(")
        values: dict[str, Value] = {}
        inputs: list[Value] = []

        def parameter() -> None:
            name = self.take("value")
            self.take("mark", ":")
            text = name.text[1:]
            value = input_value(json.loads(text) if text[0] == '"' else text, self.type())
            if name.text in values:
                self.fail(f"input {name.text} is defined twice", name)
            values[name.text] = value
            inputs.append(value)

        self.many(parameter, ")")
        self.take("mark", "{")
        while not self.accept("return"):
            self.statement(values)
        outputs: list[Value] = []
        names: list[str] = []
        while not self.accept("}"):
            outputs.append(self.operand(values))
            self.take("word", "as")
            names.append(json.loads(self.take("string").text))
            if not self.accept(","):
                self.take("mark", "}")
                break
        return Graph(inputs, outputs, names)

    def operand(self, values: Mapping[str, Value]) -> Value:
        name = self.take("value")
        if name.text not in values:
            self.fail(f"{name.text} is used but not defined before", name)
        return values[name.text]

    def statement(self, values: dict[str, Value]) -> None:
        from graphc.ops import REGISTRY

        start = self.next
        results = [self.take("value")]
        while self.accept(","):
            results.append(self.take("value"))
        self.take("mark", "=")
        word = self.take("word")
        operands: list[Value] = []
        attrs: dict[str, Any] = {}
        data: Any = None
        if word.text == "constant":
            data = self.data()
        else:
            if word.text not in REGISTRY:
                self.fail(f"no operation {word.text!r}", word)
            self.take("mark", "(")
            while self.next.kind == "value":
                operands.append(self.operand(values))
                if not self.accept(","):
                    break
            attrs = dict(self.many(self.attribute, ")"))
        self.take("mark", ":")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        where = self.location(self.tokens[self.position - 1].line)
        try:
            with location(*where):
                made = (
                    (constant(self.literal(data, types[0], start)),)
                    if word.text == "constant"
                    else make(REGISTRY[word.text], *operands, **attrs)
                )
        except (GraphcError, TypeError) as e:
            if isinstance(e, ParseError):
                raise
            self.fail(str(e), start)
        self.check(types, made, start)
        if len(results) != len(made):
            self.fail(f"{word.text} has {len(made)} results, the line names {len(results)}", start)
        for name, value in zip(results, made, strict=True):
            if name.text in values:
                self.fail(f"{name.text} is defined twice", name)
            values[name.text] = value

    def check(self, declared: list[Type], made: tuple[Value, ...], start: _Token) -> None:
        """The types in the text are what inference gives."""
        if len(declared) == len(made):
            known = [v.type for v in made[0].node.inputs] if made else []
            renames = fresh_renames(declared, [v.type for v in made], known)
            if renames is not None:
                self.renames |= renames
                return
        found = ", ".join(str(v.type) for v in made)
        self.fail(f"the text says {', '.join(map(str, declared))} but the operation gives {found}", start)

    def location(self, line: int) -> list[str]:
        text = self.comments.get(line, "")
        found = re.findall(r'"(?:[^"\\]|\\.)*"|[^,\s][^,]*', text)
        return [json.loads(w) if w[0] == '"' else w.strip() for w in found]

    def attribute(self) -> tuple[str, Any]:
        key = self.take("word").text
        self.take("mark", "=")
        return key, self.value()

    def value(self) -> Any:
        token = self.next
        match token.kind:
            case "string":
                self.position += 1
                return json.loads(token.text)
            case "number":
                return self.number()
            case "dim":
                self.position += 1
                return self.dim(token.text[1:-1], token)
            case "mark" if self.accept("("):
                return tuple(self.many(self.value, ")"))
            case "word" if token.text in ("True", "False", "None"):
                self.position += 1
                return {"True": True, "False": False, "None": None}[token.text]
            case "word" if token.text == "graph":
                return self.graph()
            case "word" if token.text == "literal":
                self.position += 1
                self.take("mark", "(")
                t = self.type()
                self.take("mark", ",")
                data = self.data()
                self.take("mark", ")")
                return self.literal(data, t, token)
            case "word" if self.tokens[self.position + 1].text in ("[", "<"):
                return self.type()
            case "word":
                self.position += 1
                return dtype_of(token.text) if _is_dtype(token.text) else self.dim(token.text, token)
        return self.fail(f"expected an attribute's value, found {token.text!r}")

    def number(self) -> Any:
        token = self.take("number")
        if token.text.endswith("j"):
            return complex(token.text)
        return int(token.text) if re.fullmatch(r"[-+]?\d+", token.text) else float(token.text)

    def data(self) -> Any:
        """A constant's data: `@name`, or numbers."""
        return _Reference(self.take("data").text[1:]) if self.next.kind == "data" else self.numbers()

    def numbers(self) -> Any:
        """The data of a constant: a number, a word, a string, or nested lists of them."""
        if self.accept("["):
            return self.many(self.numbers, "]")
        if self.accept("("):  # a complex number prints as (1+2j)
            text = "".join(self.take("number").text for _ in range(2))
            self.take("mark", ")")
            return complex(text)
        if self.next.kind == "string":
            return json.loads(self.take("string").text)
        if self.next.text in ("True", "False"):
            return self.take("word").text == "True"
        return self.number()

    def literal(self, data: Any, t: Type, token: _Token) -> Literal:
        if not isinstance(t, TensorType) or not t.is_static:
            self.fail(f"a constant cannot have the type {t}", token)
        if not isinstance(data, _Reference):
            try:
                return Literal(_array(data, t), dtype=t.dtype)
            except (TypeError, ValueError) as e:
                self.fail(f"the data does not fit {t}: {e}", token)
        if data not in self.constants:
            self.fail(f"constant @{data} has no data; pass constants={{{data!r}: array}}", token)
        if data not in self.literals:
            given = self.constants[data]
            self.literals[data] = given if isinstance(given, Literal) else Literal(np.asarray(given), data)
        return self.literals[data]

    def type(self) -> Type:
        word = self.take("word")
        if word.text in ("sequence", "optional"):
            self.take("mark", "<")
            element = self.type()
            self.take("mark", ">")
            return SequenceType(element) if word.text == "sequence" else OptionalType(element)
        if not _is_dtype(word.text):
            self.fail(f"no element type {word.text!r}", word)
        self.take("mark", "[")
        shape: list[DimLike] = []
        while not self.accept("]"):
            shape.append(self.dimension())
            self.accept(",")
        return substitute_type(TensorType(dtype_of(word.text), tuple(shape)), self.renames)

    def dimension(self) -> DimLike:
        """A dimension in a shape: everything up to the next comma or bracket that is not inside parentheses."""
        start, depth = self.next, 0
        parts: list[str] = []
        while depth or self.next.text not in (",", "]"):
            if self.next.kind not in ("word", "number", "mark"):
                self.fail(f"expected a dimension, found {self.next.text or 'the end'!r}")
            depth += {"(": 1, ")": -1}.get(self.next.text, 0)
            parts.append(self.next.text)
            self.position += 1
        try:
            return parse_dim(" ".join(parts))
        except ValueError as e:
            self.fail(str(e), start)

    def dim(self, text: str, token: _Token) -> DimLike:
        try:
            return substitute(parse_dim(text), self.renames)
        except ValueError as e:
            self.fail(str(e), token)
