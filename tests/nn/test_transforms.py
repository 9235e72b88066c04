# SPDX-License-Identifier: BSD-3-Clause
"""Layers without parameters that take one array: shapes, results, slopes, messages."""

import copy

import numpy as np
import pytest
from slopes import check_gradients

import fastrnn
from fastrnn import (
    AveragePooling1D,
    Flatten,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
    Permute,
    RepeatVector,
    Reshape,
    SpatialDropout1D,
)

N, T, F = 3, 7, 4
MASK = np.arange(T) < np.array([[7], [3], [0]])

# By name: a layer for samples first, and the function of x that it must be.
LAYERS = {
    "flatten": (Flatten(), lambda x: x.reshape(N, T * F)),
    "reshape": (Reshape((2, -1)), lambda x: x.reshape(N, 2, T * F // 2)),
    "permute": (Permute((2, 1)), lambda x: x.transpose(0, 2, 1)),
    "mean": (GlobalAveragePooling1D(batch_first=True), lambda x: x.mean(1)),
    "mean kept": (
        GlobalAveragePooling1D(keepdims=True, batch_first=True),
        lambda x: x.mean(1, keepdims=True),
    ),
    "max": (GlobalMaxPooling1D(batch_first=True), lambda x: x.max(1)),
    "windows": (
        MaxPooling1D(3, batch_first=True),
        lambda x: np.stack([x[:, 0:3].max(1), x[:, 3:6].max(1)], 1),
    ),
    "windows that overlap": (
        MaxPooling1D(3, 2, batch_first=True),
        lambda x: np.stack([x[:, t : t + 3].max(1) for t in (0, 2, 4)], 1),
    ),
    "windows beyond": (
        MaxPooling1D(4, 3, "same", batch_first=True),
        # 3 windows reach over 10 steps: one before and two after the seven.
        lambda x: np.stack([x[:, 0:3].max(1), x[:, 2:6].max(1), x[:, 5:7].max(1)], 1),
    ),
    "means": (
        AveragePooling1D(2, batch_first=True),
        lambda x: x[:, :6].reshape(N, 3, 2, F).mean(2),
    ),
    "means beyond": (
        AveragePooling1D(4, 3, "same", batch_first=True),
        lambda x: np.stack(
            [x[:, 0:3].mean(1), x[:, 2:6].mean(1), x[:, 5:7].mean(1)], 1
        ),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_results_and_slopes(name, rng, dtype):
    layer, expected = LAYERS[name]
    layer = copy.deepcopy(layer)
    x = rng.normal(size=(N, T, F)).astype(dtype)
    y = layer(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected(x), rtol=1e-6)
    if dtype == "float32":
        assert layer.backward(np.ones_like(y)).dtype == dtype
        return
    w = rng.normal(size=y.shape)
    dx = layer.backward(w)
    check_gradients(lambda: (layer(x) * w).sum(), layer, {"x": dx}, {"x": x})


@pytest.mark.parametrize("name", [n for n in LAYERS if LAYERS[n][0].__class__ not in
                                  (Flatten, Reshape, Permute)])  # fmt: skip
def test_by_themselves_they_take_steps_first(name, rng):
    layer, expected = LAYERS[name]
    layer = copy.deepcopy(layer)
    layer.batch_first = False
    x = rng.normal(size=(N, T, F))
    y, want = layer(x.swapaxes(0, 1)), expected(x)
    np.testing.assert_allclose(y, want.swapaxes(0, 1) if want.ndim > 2 else want)
    assert layer.backward(y).shape == (T, N, F)
    np.testing.assert_allclose(fastrnn.Sequential(layer)(x), want)


def test_a_vector_repeated(rng):
    x, w = rng.normal(size=(N, F)), rng.normal(size=(5, N, F))
    layer = RepeatVector(5)
    np.testing.assert_array_equal(layer(x), np.stack([x] * 5))
    dx = layer.backward(w)
    check_gradients(lambda: (layer(x) * w).sum(), layer, {"x": dx}, {"x": x})
    np.testing.assert_array_equal(
        fastrnn.Sequential(layer)(x), np.stack([x] * 5, axis=1)
    )


def test_the_mean_of_steps_that_count(rng):
    x, w = rng.normal(size=(N, T, F)), rng.normal(size=(N, F))
    layer = GlobalAveragePooling1D(batch_first=True)
    y = layer(x, mask=MASK)
    np.testing.assert_allclose(y[0], x[0].mean(0))
    np.testing.assert_allclose(y[1], x[1, :3].mean(0))
    assert not y[2].any()  # no step counts
    dx = layer.backward(w)
    check_gradients(lambda: (layer(x, mask=MASK) * w).sum(), layer, {"x": dx}, {"x": x})
    layer.batch_first = False
    np.testing.assert_allclose(layer(x.swapaxes(0, 1), mask=MASK.T), y)
    x[~MASK] = np.nan
    assert np.isfinite(layer(x.swapaxes(0, 1), mask=MASK.T)).all()


def test_masks_in_a_model(rng):
    """A mean has the mask of its sequence, and no mask goes on after it."""
    x = rng.normal(size=(N, T, F))
    x[~MASK] = 0
    model = fastrnn.Sequential(fastrnn.Masking(), GlobalAveragePooling1D())
    np.testing.assert_allclose(model(x)[1], x[1, :3].mean(0))
    assert model.output_mask is None
    for layer in (GlobalMaxPooling1D(), MaxPooling1D(), Flatten(), Permute((2, 1))):
        with pytest.warns(UserWarning, match="a mask ends here"):
            fastrnn.Sequential(fastrnn.Masking(), layer)(x)
    model = fastrnn.Sequential(fastrnn.Masking(), SpatialDropout1D(0.5, seed=0))
    model(x)
    np.testing.assert_array_equal(model.output_mask, x.any(axis=-1))


def test_spatial_dropout(rng, dtype):
    x = rng.normal(size=(50, T, 20)).astype(dtype)
    layer = SpatialDropout1D(0.4, batch_first=True, seed=1)
    y = layer(x)
    factors = y / x
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], x.shape), 1e-5)
    kept = factors[:, 0] > 0
    assert 0.55 < kept.mean() < 0.65
    np.testing.assert_allclose(factors[:, 0][kept], 1 / 0.6, rtol=1e-5)
    dy = rng.normal(size=x.shape).astype(dtype)
    np.testing.assert_allclose(layer.backward(dy), dy * factors, rtol=1e-5)
    assert layer.eval()(x) is x
    again = SpatialDropout1D(0.4, seed=1)
    np.testing.assert_array_equal(again(x.swapaxes(0, 1)).swapaxes(0, 1).shape, x.shape)


def test_integers_pass_to_an_embedding(rng):
    table = fastrnn.Embedding(9, 2, seed=0)
    model = fastrnn.Sequential(Reshape((2, 3)), Permute((2, 1)), Flatten(), table)
    x = rng.integers(0, 9, (N, 6))
    np.testing.assert_array_equal(
        model(x), table(x.reshape(N, 2, 3).transpose(0, 2, 1).reshape(N, 6))
    )
    assert model.backward(np.ones((N, 6, 2))) is None
    assert table.grads["weight"].any()


@pytest.mark.parametrize(
    "layer",
    [GlobalAveragePooling1D(), AveragePooling1D(3, 1, "same"), MaxPooling1D(2)],
    ids=str,
)
@pytest.mark.parametrize("width", [1, 5])
def test_a_row_has_the_bits_it_has_alone(layer, width, rng):
    x = rng.normal(size=(33, 50, width)).astype("f")
    model = fastrnn.Sequential(layer).eval()
    whole = model(x)
    for row in (0, 7, 32):
        np.testing.assert_array_equal(model(x[row : row + 1])[0], whole[row])


X = np.ones((N, T, F))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Reshape(3), TypeError, "Reshape: target_shape must be a tuple of int"),
        (
            lambda: Reshape((-1, -1)),
            ValueError,
            r"Reshape: target_shape must have -1 at most once, got \(-1, -1\)",
        ),
        (
            lambda: Reshape((0, 3)),
            ValueError,
            r"Reshape: target_shape\[0\] must be a positive integer, got 0",
        ),
        (
            lambda: Reshape((5, -1))(X),
            ValueError,
            r"x must have samples of as many numbers as target_shape, \(5, -1\), got "
            r"shape \(3, 7, 4\)",
        ),
        (lambda: Permute((1, 3)), ValueError, "each number from 1 to 2 once"),
        (lambda: Permute((1,))(X), ValueError, "must have 1 axes beside that of sam"),
        (lambda: Flatten()(1.0), ValueError, r"x must have shape \(N, ...\), got \(\)"),
        (lambda: RepeatVector(0), ValueError, "n must be a positive integer, got 0"),
        (
            lambda: RepeatVector(2)(X),
            ValueError,
            r"RepeatVector: x must have shape \(B, features\), got \(3, 7, 4\)",
        ),
        (
            lambda: GlobalMaxPooling1D()(X[0]),
            ValueError,
            r"GlobalMaxPooling1D: x must have shape \(T, B, features\), got \(7, 4\)",
        ),
        (
            lambda: GlobalAveragePooling1D()(X[:0]),
            ValueError,
            "must have T >= 1, got shape",
        ),
        (
            lambda: GlobalAveragePooling1D()(X, mask=MASK.T),
            ValueError,
            "GlobalAveragePooling1D: mask must have the shape",
        ),
        (
            lambda: MaxPooling1D(4)(X),
            ValueError,
            "MaxPooling1D: x must have as many steps as a window, 4, got 3",
        ),
        (lambda: MaxPooling1D(2, padding="causal"), ValueError, "one of 'valid', 'sam"),
        (lambda: AveragePooling1D(strides=0), ValueError, "strides must be a positive"),
        (lambda: SpatialDropout1D(2), ValueError, r"p must be a number in \[0, 1\]"),
        (
            lambda: Flatten().backward(X),
            RuntimeError,
            "Flatten: backward needs a forward in training mode",
        ),
        (
            lambda: (layer := Flatten(), layer(X), layer.backward(X)),
            ValueError,
            r"Flatten.backward: dy must have the shape of y, \(3, 28\), got \(3, 7, 4",
        ),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
