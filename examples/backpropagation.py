"""The backpropagation recursions, written out by hand and compared with the graph's gradients (F3).

    python examples/backpropagation.py

Four parts, all in float64:

1. the 4-layer lemma: x1 = g1(W1 x0 + b1), ..., x4 = g4(x3), E = 1/2 |x4 - t|^2, with
   d3 = (x4 - t) * g4'(x3) * g3'(W3 x2 + b3),  d2 = W3^T d3 * g2'(.),  d1 = W2^T d2 * g1'(.);
   dE/dWi = di x(i-1)^T,  dE/dbi = di;
2. the L-layer theorem: di = W(i+1)^T d(i+1) * gi'(Wi x(i-1) + bi), for any depth;
3. zero weights and biases: with g(0) = 0 only the last bias has a gradient;
4. the graph with a shared use: cross entropy of W2 relu(W1 x) plus lambda (|W1|^2 + |W2|^2).

(Some texts print d3 without g4', and g'_L for g'_i in the theorem; the forms here are the ones that agree.)
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

import graphc

Array = np.ndarray
Layer = tuple[Array, Array]  # weights [out, in], biases [out]

#: activations: as graphc and NumPy compute them (`xp` is either), and their derivatives
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (lambda xp, z: xp.tanh(z), lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (lambda xp, z: 1 / (1 + xp.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "sin": (lambda xp, z: xp.sin(z), lambda z: np.cos(z)),
}


def network(layers: Sequence[Layer], x: Array, names: Sequence[str], xp: object = graphc) -> list[Array]:
    """The values x0, x1, ... of all layers."""
    values = [x]
    for (w, b), name in zip(layers, names, strict=True):
        values.append(ACTIVATIONS[name][0](xp, w @ values[-1] + b))
    return values


def by_recursion(layers: Sequence[Layer], x: Array, names: Sequence[str], end: Array) -> list[Layer]:
    """The gradients by the L-layer theorem, from `end`, the derivative of the loss by the last layer's value."""
    values = network(layers, x, names, np)
    grads: list[Layer] = []
    back = end
    for (w, b), name, before in reversed(list(zip(layers, names, values[:-1], strict=True))):
        delta = back * ACTIVATIONS[name][1](w @ before + b)
        grads.append((np.outer(delta, before), delta))
        back = w.T @ delta
    return grads[::-1]


def worst(found: object, expected: object) -> float:
    """The largest difference between two trees of arrays, relative to the largest element."""
    pairs = list(zip(leaves(found), leaves(expected), strict=True))
    return max(float(np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b))))) for a, b in pairs)


def leaves(tree: object) -> list[Array]:
    if isinstance(tree, dict):
        return [a for key in sorted(tree) for a in leaves(tree[key])]
    return [a for t in tree for a in leaves(t)] if isinstance(tree, list | tuple) else [np.asarray(tree)]


def random_layers(rng: np.random.Generator, sizes: Sequence[int]) -> list[Layer]:
    return [(rng.standard_normal((n, m)) / np.sqrt(m), rng.standard_normal(n)) for m, n in pairwise(sizes)]


def four_layers(rng: np.random.Generator) -> float:
    """The lemma: three layers with weights, and g4 on top of them."""
    layers, names = random_layers(rng, (5, 7, 6, 4)), ("tanh", "sigmoid", "tanh")
    x, t = rng.standard_normal(5), rng.standard_normal(4)
    top, top_derivative = ACTIVATIONS["sin"]

    def loss(layers: Sequence[Layer]) -> Array:
        error = top(graphc, network(layers, x, names)[-1]) - t
        return 0.5 * graphc.sum(error * error)

    x3 = network(layers, x, names, np)[-1]
    by_hand = by_recursion(layers, x, names, (np.sin(x3) - t) * top_derivative(x3))
    return worst(graphc.compile(graphc.grad(loss))(layers), by_hand)


def many_layers(rng: np.random.Generator, depth: int = 12) -> float:
    """The theorem, for a net of `depth` layers of changing width."""
    sizes = [int(n) for n in rng.integers(3, 9, depth + 1)]
    layers, names = random_layers(rng, sizes), ["tanh", "sigmoid", "sin"] * (depth // 3)
    x, t = rng.standard_normal(sizes[0]), rng.standard_normal(sizes[-1])

    def loss(layers: Sequence[Layer]) -> Array:
        return 0.5 * graphc.sum((network(layers, x, names)[-1] - t) ** 2)

    by_hand = by_recursion(layers, x, names, network(layers, x, names, np)[-1] - t)
    return worst(graphc.compile(graphc.grad(loss))(layers), by_hand)


def zero_weights(rng: np.random.Generator) -> list[bool]:
    """Which of W1, b1, W2, b2, W3, b3 have a gradient when all of them are zero."""
    layers = [(0 * w, 0 * b) for w, b in random_layers(rng, (5, 7, 6, 4))]
    x, t = rng.standard_normal(5), rng.standard_normal(4)

    def loss(layers: Sequence[Layer]) -> Array:
        return 0.5 * graphc.sum((network(layers, x, ("tanh", "tanh", "tanh"))[-1] - t) ** 2)

    return [bool(np.any(g != 0)) for g in leaves(graphc.compile(graphc.grad(loss))(layers))]


def shared_weights(rng: np.random.Generator, decay: float = 0.1) -> float:
    """Cross entropy of logits W2 relu(W1 x) plus decay * (|W1|^2 + |W2|^2): each weight is used twice."""
    weights = {"w1": rng.standard_normal((8, 5)), "w2": rng.standard_normal((4, 8))}
    x, label = rng.standard_normal(5), 2

    def loss(weights: dict[str, Array]) -> Array:
        logits = weights["w2"] @ graphc.maximum(weights["w1"] @ x, 0.0)
        entropy = graphc.log(graphc.sum(graphc.exp(logits))) - logits[label]
        return entropy + decay * (graphc.sum(weights["w1"] ** 2) + graphc.sum(weights["w2"] ** 2))

    u = weights["w1"] @ x
    h = np.maximum(u, 0)
    p = np.exp(weights["w2"] @ h)
    error = p / p.sum() - np.eye(4)[label]
    by_hand = {
        "w1": np.outer(weights["w2"].T @ error * (u > 0), x) + 2 * decay * weights["w1"],
        "w2": np.outer(error, h) + 2 * decay * weights["w2"],
    }
    return worst(graphc.compile(graphc.grad(loss))(weights), by_hand)


def main() -> float:
    """Print the largest difference of each part; return the largest of all."""
    rng = np.random.default_rng(0)
    errors = {
        "4-layer lemma": four_layers(rng),
        "12-layer theorem": many_layers(rng),
        "shared weights with decay": shared_weights(rng),
    }
    for what, error in errors.items():
        print(f"{what:28} hand recursion against graph gradient: {error:.1e}")
    connected = zero_weights(rng)
    names = ("W1", "b1", "W2", "b2", "W3", "b3")
    print("at zero weights, with a gradient:", ", ".join(n for n, c in zip(names, connected, strict=True) if c))
    assert connected == [False] * 5 + [True]
    return max(errors.values())


if __name__ == "__main__":
    assert main() < 1e-10
