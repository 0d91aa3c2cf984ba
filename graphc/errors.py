"""Every error that graphc raises on purpose, so that callers can tell a bad model from a bug in the compiler.

All of them derive from `GraphcError`; the command line turns any of them into one message and exit code 2.
Where Python has a fitting built-in (`TypeError`, `ValueError`, ...) the class derives from that too.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AxisError",
    "CacheError",
    "CompileError",
    "GradientError",
    "GradientNotWrittenError",
    "GraphTypeError",
    "GraphcError",
    "InputError",
    "ModelError",
    "NeedsValue",
    "NonFiniteError",
    "NotConnectedError",
    "NotDifferentiableError",
    "OptionError",
    "ParseError",
    "PassError",
    "TraceError",
    "UnsafeModelError",
    "UnsupportedError",
    "UnsupportedItem",
    "VerifyError",
]


class GraphcError(Exception):
    """Base of all errors that graphc raises on purpose."""


class ModelError(GraphcError, ValueError):
    """A model file cannot be read: not ONNX, truncated, inconsistent, or one of its files is missing."""


class UnsafeModelError(ModelError):
    """A model asks for something a stranger's model must not have: a path outside its folder, a link, too much memory."""


class UnsupportedItem(tuple[str, str, str]):
    """One thing a model needs and graphc lacks: (operator, node name, reason)."""

    __slots__ = ()

    def __new__(cls, operator: str, node: str, reason: str) -> UnsupportedItem:
        return super().__new__(cls, (operator, node, reason))


class UnsupportedError(GraphcError, NotImplementedError):
    """A model needs operators or attributes that graphc does not have; `items` lists all of them, not only the first."""

    def __init__(self, items: Sequence[UnsupportedItem]) -> None:
        self.items = tuple(items)
        lines = [f"  {operator}: {reason} (node {node!r})" for operator, node, reason in self.items]
        count = f"{len(lines)} node{'s' if len(lines) != 1 else ''}"
        super().__init__(f"the model needs what graphc does not support, in {count}:\n" + "\n".join(lines))


class GradientError(GraphcError):
    """A derivative that was asked for cannot be given; the classes below say why."""


class NotConnectedError(GradientError, ValueError):
    """No differentiable path leads from what a derivative is asked with respect to, to what is differentiated."""


class NotDifferentiableError(GradientError, TypeError):
    """What stands on the path, or the value itself, has no derivative: an integer, a string, an index."""


class GradientNotWrittenError(GradientError, NotImplementedError):
    """The operation is differentiable, and graphc has no gradient for it."""


class GraphTypeError(GraphcError, TypeError):
    """An operation was given operands whose types do not fit: says which operand, what was expected and what came."""


class AxisError(GraphTypeError, ValueError, IndexError):
    """An axis that an array does not have, or that is named twice; IndexError and ValueError as NumPy's is."""


class TraceError(GraphcError, TypeError):
    """A Python function does with traced tensors what cannot be written down as a graph; says what to do instead."""


class NonFiniteError(GraphcError, FloatingPointError):
    """A debugging run met a NaN; names the first operation that made one, and its line."""


class VerifyError(GraphcError):
    """A graph breaks an invariant of the IR; raised between passes, it names the pass that broke it."""


class ParseError(GraphcError, ValueError):
    """Text that should be a graph is not; says the line."""


class PassError(GraphcError):
    """A pass or a rewrite rule broke its contract: changed a type, or did not come to an end."""


class CompileError(GraphcError):
    """A kernel could not be generated or compiled; names the kernel and the operations in it."""


class InputError(GraphcError, ValueError):
    """A call's inputs do not fit the model: names the input, what was expected and what came."""


class NeedsValue(GraphcError):  # noqa: N818  (a request to the caller)
    """A type depends on the value of graph inputs (`names`), not only on their types: the graph can be made once they
    are known. `where` says what needs them."""

    def __init__(self, names: Sequence[str], where: str) -> None:
        self.names = tuple(names)
        plural = "s" if len(names) > 1 else ""
        super().__init__(
            f"{where} needs the value of the input{plural} {', '.join(map(repr, names))}, not only the type"
        )


class OptionError(GraphcError, ValueError):
    """An option has an unknown name or a value out of range; lists the known ones."""


class CacheError(GraphcError, OSError):
    """The kernel cache cannot be used where it was asked for explicitly."""
