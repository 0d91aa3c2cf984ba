"""Classical machine learning: the parts of ai.onnx.ml that work on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import FLOAT32, INT64, broadcast, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import functions

__all__: list[str] = []

_DOMAIN = "ai.onnx.ml"


# --- tables ---------------------------------------------------------------------------------------------------------

_KINDS = {"strings": object, "int64s": np.int64, "floats": np.float32}
_DEFAULTS: dict[str, Any] = {"strings": "_Unused", "int64s": -1, "floats": -0.0}


def _entries(c: Context, name: str) -> tuple[np.ndarray, str]:
    """The keys or values of a mapping, and in which of the attributes they stand."""
    for kind, dtype in _KINDS.items():
        if c.has(f"{name}_{kind}"):
            getter = {"strings": c.strings, "int64s": c.ints, "floats": c.floats}[kind]
            return np.array(getter(f"{name}_{kind}"), dtype), kind
    if not c.has(f"{name}_tensor"):
        c.invalid(f"it holds no {name}")
    return c.tensor(f"{name}_tensor").array, "tensor"


@importer("LabelEncoder", 2, 4, domain=_DOMAIN)
def label_encoder(c: Context, x: Value) -> Value:
    """Each element looked up among the keys; the last of equal keys holds, NaN finds NaN."""
    keys, _ = _entries(c, "keys")
    values, kind = _entries(c, "values")
    if keys.shape != values.shape or keys.ndim != 1:
        c.invalid(f"there are {keys.shape} keys and {values.shape} values")
    if kind == "tensor":
        default = constant(c.tensor("default_tensor")) if c.has("default_tensor") else scalar(0, dtype_of(values))
        default = reshape(default, ())
    else:
        getter = {"strings": c.string, "int64s": c.int, "floats": c.float}[kind]
        default = constant(np.array(getter(f"default_{kind[:-1]}", _DEFAULTS[kind]), _KINDS[kind]))
    shape = (*x.shape, len(keys))
    table = broadcast(c.constant(keys), shape)
    element = broadcast(reshape(x, (*x.shape, 1)), shape)
    hit = ops.eq(element, table)
    if x.dtype.is_float:
        hit = ops.logical_or(hit, ops.logical_and(ops.isnan(element), ops.isnan(table)))
    place = ops.argmax(to(hit, INT64), axis=x.rank, select_last=True)
    found = ops.gather(c.constant(values), place, axis=0)
    return ops.select(ops.reduce_or(hit, axes=(x.rank,)), found, broadcast(default, x.shape))


@importer("ArrayFeatureExtractor", 1, domain=_DOMAIN)
def array_feature_extractor(c: Context, x: Value, indices: Value) -> Value:
    """Columns of the last axis; a vector counts as one row."""
    rows = x if x.rank > 1 else reshape(x, (1, *x.shape))
    return ops.gather(rows, reshape(indices, (indices.tensor.size,)), axis=rows.rank - 1)


@importer("Binarizer", 1, domain=_DOMAIN)
def binarizer(c: Context, x: Value) -> Value:
    return to(ops.gt(x, scalar(c.float("threshold", 0.0), x.dtype)), x.dtype)


# --- features -------------------------------------------------------------------------------------------------------


def _vector(c: Context, numbers: Sequence[float], x: Value) -> Value:
    """One number for all columns, or one a column."""
    return broadcast(c.constant(np.array(numbers, np.float32)), x.shape)


@importer("Scaler", 1, domain=_DOMAIN)
def scaler(c: Context, x: Value) -> Value:
    x = to(x, FLOAT32)
    return ops.mul(ops.sub(x, _vector(c, c.floats("offset", (0.0,)), x)), _vector(c, c.floats("scale", (1.0,)), x))


@importer("Imputer", 1, domain=_DOMAIN)
def imputer(c: Context, x: Value) -> Value:
    if x.dtype.is_float:
        values, replaced = c.floats("imputed_value_floats"), c.float("replaced_value_float", 0.0)
        missing = ops.isnan(x) if np.isnan(replaced) else ops.eq(x, scalar(replaced, x.dtype))
    else:
        values, replaced = c.ints("imputed_value_int64s"), c.int("replaced_value_int64", 0)
        missing = ops.eq(x, scalar(replaced, x.dtype))
    return ops.select(missing, broadcast(c.constant(np.array(values, x.dtype.numpy)), x.shape), x)


@importer("Normalizer", 1, domain=_DOMAIN)
def normalizer(c: Context, x: Value) -> Value:
    x = to(x, FLOAT32)
    last = (x.rank - 1,)
    match c.string("norm", "MAX"):
        case "MAX":
            norm = ops.reduce_max(ops.abs(x), axes=last)
        case "L1":
            norm = ops.reduce_sum(ops.abs(x), axes=last)
        case "L2":
            norm = ops.sqrt(ops.reduce_sum(ops.mul(x, x), axes=last))
        case other:
            c.invalid(f"the norm is {other!r}; known are MAX, L1 and L2")
    return ops.div(x, broadcast(reshape(norm, (*x.shape[:-1], 1)), x.shape))


@importer("FeatureVectorizer", 1, domain=_DOMAIN)
def feature_vectorizer(c: Context, *xs: Value) -> Value:
    c.ignore("inputdimensions")
    rows = [to(x if x.rank == 2 else reshape(x, (1, *x.shape)), FLOAT32) for x in xs]
    return rows[0] if len(rows) == 1 else ops.concat(*rows, axis=1)


@importer("LinearRegressor", 1, domain=_DOMAIN)
def linear_regressor(c: Context, x: Value) -> Value:
    targets = c.int("targets", 1)
    weights = np.array(c.floats("coefficients"), np.float32).reshape(targets, -1).T
    y = ops.dot(to(x, FLOAT32), c.constant(np.ascontiguousarray(weights)))
    if c.has("intercepts"):
        y = ops.add(y, _vector(c, c.floats("intercepts"), y))
    return _transformed(c, y, c.string("post_transform", "NONE"))


def _transformed(c: Context, scores: Value, how: str) -> Value:
    match how:
        case "NONE":
            return scores
        case "SOFTMAX":
            return functions.softmax(scores, axis=scores.rank - 1)
        case "LOGISTIC":
            return ops.sigmoid(scores)
        case "SOFTMAX_ZERO":
            zero = scalar(0, scores.dtype)
            return ops.select(ops.eq(scores, zero), zero, functions.softmax(scores, axis=scores.rank - 1))
    return c.unsupported(f"the transformation {how} of scores")


# --- trees ----------------------------------------------------------------------------------------------------------

_MODES = (ops.le, ops.lt, ops.ge, ops.gt, ops.eq, ops.ne)
_MEMBER = 6


@importer("TreeEnsemble", 5, domain=_DOMAIN)
def tree_ensemble(c: Context, x: Value) -> Value:
    """All trees for all rows at once, a level a step: gather each place's node, compare, go on; leaves stay."""
    c.ignore("nodes_hitrates")
    nodes = len(c.ints("nodes_featureids"))
    leaves = len(c.ints("leaf_targetids"))
    after = {}
    for side in ("true", "false"):
        target, is_leaf = np.array(c.ints(f"nodes_{side}nodeids")), np.array(c.ints(f"nodes_{side}leafs"))
        # leaves are numbered after the nodes, and lead to themselves
        after[side] = np.concatenate([target + nodes * (is_leaf != 0), np.arange(nodes, nodes + leaves)])
    modes = c.tensor("nodes_modes").array.astype(np.int64)
    missing = np.array(c.ints("nodes_missing_value_tracks_true", (0,) * nodes)) != 0
    roots = np.array(c.ints("tree_roots"), np.int64)
    depth = _depth(c, roots, after["true"], after["false"], nodes)
    rows, trees = x.shape[0], len(roots)

    def column(array: np.ndarray, fill: Any) -> Value:
        """A node attribute by place, with something harmless for the leaves."""
        return c.constant(np.concatenate([array, np.full(leaves, fill, array.dtype)]))

    features = column(np.array(c.ints("nodes_featureids"), np.int64), 0)
    splits = column(c.tensor("nodes_splits").array.astype(x.dtype.numpy), 0)
    kinds = column(modes, 0)
    tracks = column(missing, False)
    members = _members(c, modes, x, leaves) if (modes == _MEMBER).any() else None
    place = broadcast(c.constant(roots[None]), (rows, trees))
    at = {side: c.constant(ids.astype(np.int64)) for side, ids in after.items()}
    for _ in range(depth):
        value = ops.gather_elements(x, ops.gather(features, place, axis=0), axis=1)
        split, kind = ops.gather(splits, place, axis=0), ops.gather(kinds, place, axis=0)
        holds = broadcast(constant(np.False_), (rows, trees))
        for mode, compare in enumerate(_MODES):
            if (modes == mode).any():
                holds = ops.select(ops.eq(kind, mode), compare(value, split), holds)
        if members is not None:
            listed = ops.gather(members, place, axis=0)
            one_of = ops.reduce_or(ops.eq(broadcast(reshape(value, (rows, trees, 1)), listed.shape), listed), axes=(2,))
            holds = ops.select(ops.eq(kind, _MEMBER), one_of, holds)
        if missing.any():
            holds = ops.logical_or(holds, ops.logical_and(ops.isnan(value), ops.gather(tracks, place, axis=0)))
        place = ops.select(holds, ops.gather(at["true"], place, axis=0), ops.gather(at["false"], place, axis=0))
    return _aggregate(c, ops.sub(place, nodes), rows, trees, x)


def _depth(c: Context, roots: np.ndarray, when_true: np.ndarray, when_false: np.ndarray, nodes: int) -> int:
    """The number of comparisons on the longest way to a leaf."""
    if len(when_true) != len(when_false) or (np.concatenate([when_true, when_false]) >= len(when_true)).any():
        c.invalid("a branch leads to no node")
    front, depth = np.unique(roots), 0
    while (front < nodes).any():
        depth += 1
        if depth > nodes:
            c.invalid("the branches form a cycle")
        inner = front[front < nodes]
        front = np.unique(np.concatenate([when_true[inner], when_false[inner]]))
    return depth


def _members(c: Context, modes: np.ndarray, x: Value, leaves: int) -> Value:
    """The sets of the membership nodes, in order and delimited by NaN, as rows filled up with NaN."""
    values = c.tensor("membership_values").array
    ends = np.flatnonzero(np.isnan(values))
    sets = [part[~np.isnan(part)] for part in np.split(values, ends)]
    table = np.full((len(modes) + leaves, max(map(len, sets))), np.nan, x.dtype.numpy)
    for node, entries in zip(np.flatnonzero(modes == _MEMBER), sets, strict=False):
        table[node, : len(entries)] = entries
    return c.constant(table)


def _aggregate(c: Context, leaf: Value, rows: Any, trees: int, x: Value) -> Value:
    """The leaves' weights gathered for each target."""
    targets = c.int("n_targets")
    how = c.int("aggregate_function", 1)
    weights = c.constant(c.tensor("leaf_weights").array)
    ids = c.constant(np.array(c.ints("leaf_targetids"), np.int64))
    shape = (rows, trees, targets)
    weight = broadcast(reshape(ops.gather(weights, leaf, axis=0), (rows, trees, 1)), shape)
    target = broadcast(reshape(ops.gather(ids, leaf, axis=0), (rows, trees, 1)), shape)
    mine = ops.eq(target, ops.iota(shape=shape, axis=2, dtype=INT64))
    zero = scalar(0, weight.dtype)
    if how in (0, 1):
        total = ops.reduce_sum(ops.select(mine, weight, zero), axes=(1,))
        if how == 0:
            total = ops.div(total, scalar(trees, total.dtype))
    elif how in (2, 3):
        reducer, far = (ops.reduce_min, np.inf) if how == 2 else (ops.reduce_max, -np.inf)
        best = reducer(ops.select(mine, weight, scalar(far, weight.dtype)), axes=(1,))
        total = ops.select(ops.reduce_or(mine, axes=(1,)), best, zero)
    else:
        c.invalid(f"aggregate_function is {how}; known are 0 to 3")
    names = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
    return _transformed(c, to(total, x.dtype), names[c.int("post_transform", 0)])
