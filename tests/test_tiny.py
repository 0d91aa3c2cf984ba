"""The smallest end-to-end test; it runs before every commit."""

import numpy as np
from small_models import classifier

import graphc


def test_a_small_model_runs() -> None:
    model = classifier()
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    got = graphc.compile(model, threads=1)(x)
    weights = {t.name: np.frombuffer(t.raw_data, np.float32).reshape(tuple(t.dims)) for t in model.graph.initializer}
    h = np.maximum(x @ weights["w"] + weights["b"], 0)
    want = np.exp(h - h.max(-1, keepdims=True))
    np.testing.assert_allclose(got, want / want.sum(-1, keepdims=True), rtol=1e-5)
