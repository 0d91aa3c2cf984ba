"""The simple recurrent net and backpropagation through time, by hand and by the graph (R1).

    python examples/bptt.py

h_t = tanh(Wh h_(t-1) + Wx x_t + b),  y_t = softmax(Wy h_t + c),  L = sum over t of -log y_t[label_t], in float64.

1. The equations of BPTT, written out: with e_t = y_t - onehot(label_t) and, walking from the end,
   a_t = Wy^T e_t + Wh^T (a_(t+1) * (1 - h_(t+1)^2)),  d_t = a_t * (1 - h_t^2):
   dL/dWy = sum e_t h_t^T,  dL/dWh = sum d_t h_(t-1)^T,  dL/dWx = sum d_t x_t^T,  dL/db = sum d_t.
   They are compared with the gradient of a `graphc.scan`, of the unrolled net and of checkpointed scans.
2. The same gradient as the double sum over pairs k <= t of dL_t/dh_t dh_t/dh_k d+h_k/dWh, where d+ is the immediate
   derivative and dh_t/dh_k = product of diag(1 - h_i^2) Wh for i = t down to k + 1: the order of factors matters.
3. Exploding and vanishing gradients: |dh_T/dh_0| for recurrent weights of spectral radius 0.5, 1 and 1.5.
4. Truncation: the gradient when no more than K steps are looked back.
"""

from typing import Any

import numpy as np

import graphc

Array = np.ndarray
Weights = dict[str, Array]


def step(w: Weights, h: Any, x: Any) -> Any:
    """One turn of the recurrence; with NumPy's arrays or graphc's tensors."""
    return np.tanh(w["h"] @ h + w["x"] @ x + w["b"])


def cross_entropy(w: Weights, h: Any, label: Any) -> Any:
    """-log softmax(Wy h + c)[label]."""
    logits = w["y"] @ h + w["c"]
    return graphc.logsumexp(logits) - graphc.take(logits, label, axis=0)


def loss_by_scan(w: Weights, xs: Any, labels: Any, **options: Any) -> Any:
    """The loss of a sequence; `options` are those of `graphc.scan`."""

    def turn(carry: Any, inputs: Any) -> Any:
        x, label = inputs
        h = step(w, carry, x)
        return h, cross_entropy(w, h, label)

    start = graphc.zeros(w["h"].shape[0], dtype=graphc.float64)
    _, losses = graphc.scan(turn, start, (xs, labels), **options)
    return graphc.sum(losses)


def loss_unrolled(w: Weights, xs: Any, labels: Any) -> Any:
    """The same, as a net with as many layers as there are steps."""
    h = graphc.zeros(w["h"].shape[0], dtype=graphc.float64)
    total = 0.0
    for t in range(xs.shape[0]):
        h = step(w, h, xs[t])
        total = total + cross_entropy(w, h, labels[t])
    return total


def forward(w: Weights, xs: Array) -> Array:
    """h_0, h_1, ..., h_T."""
    hs = [np.zeros(w["h"].shape[0])]
    for x in xs:
        hs.append(step(w, hs[-1], x))
    return np.stack(hs)


def errors(w: Weights, hs: Array, labels: Array) -> Array:
    """e_t = softmax(Wy h_t + c) - onehot(label_t), for t = 1..T."""
    logits = hs[1:] @ w["y"].T + w["c"]
    y = np.exp(logits - logits.max(1, keepdims=True))
    return y / y.sum(1, keepdims=True) - np.eye(len(w["c"]))[labels]


def by_hand(w: Weights, xs: Array, labels: Array, window: int | None = None) -> Weights:
    """The gradients by the recursion; with a window, nothing flows back from one window into the one before."""
    hs = forward(w, xs)
    e = errors(w, hs, labels)
    grads = {name: np.zeros_like(v) for name, v in w.items()}
    back = np.zeros_like(hs[0])
    for t in range(len(xs), 0, -1):
        grads["y"] += np.outer(e[t - 1], hs[t])
        grads["c"] += e[t - 1]
        d = (w["y"].T @ e[t - 1] + back) * (1 - hs[t] ** 2)
        grads["h"] += np.outer(d, hs[t - 1])
        grads["x"] += np.outer(d, xs[t - 1])
        grads["b"] += d
        first_of_window = window is not None and (t - 1) % window == 0
        back = 0 * back if first_of_window else w["h"].T @ d
    return grads


def by_double_sum(w: Weights, xs: Array, labels: Array) -> Array:
    """dL/dWh as the sum over all pairs k <= t, with the products of one-step Jacobians."""
    hs = forward(w, xs)
    e = errors(w, hs, labels)
    grad = np.zeros_like(w["h"])
    for t in range(1, len(xs) + 1):
        back = w["y"].T @ e[t - 1]  # dL_t/dh_t as a row
        for k in range(t, 0, -1):
            grad += np.outer(back * (1 - hs[k] ** 2), hs[k - 1])  # d+ h_k / dWh
            back = back @ (np.diag(1 - hs[k] ** 2) @ w["h"])  # times dh_k/dh_(k-1)
    return grad


def worst(found: Weights, expected: Weights) -> float:
    return max(
        float(np.max(np.abs(found[k] - expected[k]))) / max(1.0, float(np.abs(expected[k]).max())) for k in expected
    )


def weights(rng: np.random.Generator, hidden: int, inputs: int, classes: int) -> Weights:
    shapes = {"h": (hidden, hidden), "x": (hidden, inputs), "b": (hidden,), "y": (classes, hidden), "c": (classes,)}
    return {name: rng.standard_normal(s) / np.sqrt(s[-1]) for name, s in shapes.items()}


def gradient_norms(rng: np.random.Generator, radius: float, steps: int = 60, hidden: int = 16) -> list[float]:
    """|dh_T/dh_0| after 1..T steps of a recurrence whose weights have this spectral radius, at h = 0."""
    matrix = rng.standard_normal((hidden, hidden))
    w = {
        "h": radius * matrix / np.abs(np.linalg.eigvals(matrix)).max(),
        "x": np.zeros((hidden, 1)),
        "b": np.zeros(hidden),
    }

    @graphc.compile
    def pushed(h: Any, direction: Any, xs: Any) -> Any:
        def turn(carry: Any, x: Any) -> Any:
            value, tangent = graphc.jvp(lambda v: step(w, v, x), (carry[0],), (carry[1],))
            return (value, tangent), graphc.sqrt(graphc.sum(tangent * tangent))

        return graphc.scan(turn, (h, direction), xs)[1]

    direction = rng.standard_normal(hidden)
    return list(pushed(np.zeros(hidden), direction / np.linalg.norm(direction), np.zeros((steps, 1))))


def main(steps: int = 20) -> float:
    """Print what the four parts give; return the largest difference."""
    rng = np.random.default_rng(0)
    w, xs, labels = weights(rng, 6, 4, 3), rng.standard_normal((steps, 4)), rng.integers(0, 3, steps)
    expected = by_hand(w, xs, labels)
    found = {
        "scan": graphc.grad(loss_by_scan),
        "unrolled": graphc.grad(loss_unrolled),
        "scan, checkpoint every 4": graphc.grad(lambda *a: loss_by_scan(*a, checkpoint=4)),
        "scan, checkpoint every 7": graphc.grad(lambda *a: loss_by_scan(*a, checkpoint=7)),
    }
    differences = {name: worst(graphc.compile(f)(w, xs, labels), expected) for name, f in found.items()}
    differences["double sum over pairs"] = worst({"h": by_double_sum(w, xs, labels)}, {"h": expected["h"]})
    for window in (1, 5, 8):
        truncated = graphc.compile(graphc.grad(lambda *a, k=window: loss_by_scan(*a, window=k)))(w, xs, labels)
        differences[f"truncated, windows of {window}"] = worst(truncated, by_hand(w, xs, labels, window))
    for name, difference in differences.items():
        print(f"{name:28} against the written-out BPTT: {difference:.1e}")
    for radius in (0.5, 1.0, 1.5):
        norms = gradient_norms(rng, radius)
        print(f"spectral radius {radius}: |dh_t/dh_0 v| is {norms[9]:.1e} after 10 steps, {norms[-1]:.1e} after 60")
    return max(differences.values())


if __name__ == "__main__":
    assert main() < 1e-10
