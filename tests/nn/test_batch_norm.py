# SPDX-License-Identifier: BSD-3-Clause
"""`BatchNormalization`: a float64 reference, slopes, moving statistics, files."""

import copy
import pickle
import typing

import numpy as np
import pytest
from slopes import check_gradients

import fastrnn
from fastrnn import BatchNormalization

N, T, F = 5, 4, 3
MASK = np.arange(T) < np.array([[4], [3], [0], [1], [4]])


def made(**options):
    options = {"num_features": F, "dtype": "float64", **options}
    layer = BatchNormalization(**options)
    rng = np.random.default_rng(2)
    for view in layer.parameters.values():
        view[...] = rng.uniform(0.5, 2, view.shape)
    return layer


def reference(x, layer, counts=None, axis=2):
    """Normalised over all other axes, written for one feature at a time."""
    x, y, found = np.moveaxis(x, axis, 0), [], []
    for k, feature in enumerate(x):
        numbers = feature.ravel() if counts is None else feature[counts]
        mean, variance = numbers.mean(), numbers.var()
        found.append((mean, variance))
        out = (feature - mean) / np.sqrt(variance + layer.epsilon)
        weight, bias = (layer.parameters.get(name) for name in ("weight", "bias"))
        out = out if weight is None else out * weight[k]
        y.append(out if bias is None else out + bias[k])
    return np.moveaxis(np.array(y), 0, axis), np.array(found).T


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"center": False}, {"scale": False}, {"center": False, "scale": False},
     {"epsilon": 0.1, "momentum": 0.7}],
    ids=str,
)  # fmt: skip
def test_training(options, masked, rng):
    layer = made(**options)
    x, w = rng.normal(size=(2, N, T, F)) + 1
    mask = MASK if masked else None
    moving = {name: layer.parameters[f"moving.{name}"] for name in ("mean", "variance")}
    before = {name: view.copy() for name, view in moving.items()}
    y = layer(x, mask=mask)
    want, found = reference(x, layer, mask)
    np.testing.assert_allclose(y, want)
    for name, of_batch in zip(moving, found, strict=True):
        m = layer.momentum
        np.testing.assert_allclose(
            moving[name], m * before[name] + (1 - m) * of_batch, rtol=1e-12
        )
    for view in layer.grads.values():
        view[...] = 1
    dx = layer.backward(w)
    for name in moving:
        assert (layer.grads[f"moving.{name}"] == 1).all()
        layer.parameters[f"moving.{name}"][...] = 0

    class Trained(fastrnn.Module):  # whose parameters are those that have slopes
        parameters: typing.ClassVar = {
            k: v for k, v in layer.parameters.items() if "." not in k
        }
        grads = layer.grads
        flat_grads = layer.flat_grads

    check_gradients(
        lambda: (layer(x, mask=mask) * w).sum(), Trained(), {"x": dx}, {"x": x}
    )


@pytest.mark.parametrize("axis", [1, 2, -2])
def test_other_axes(axis, rng):
    layer = made(axis=axis, num_features=T if axis in (1, -2) else F)
    x = rng.normal(size=(N, T, F))
    want, _ = reference(x, layer, axis=axis % 3)
    np.testing.assert_allclose(layer(x), want)
    assert layer.backward(x).shape == x.shape


@pytest.mark.parametrize("how", ["eval", "frozen"])
def test_the_moving_statistics_stay(how, rng):
    """In eval mode, and as in Keras while the layer is not trainable."""
    layer = made()
    if how == "eval":
        layer.eval()
    else:
        layer.trainable = False
    before = layer.state_dict()
    x = rng.normal(size=(N, T, F))
    y = layer(x)
    p = before
    s = np.sqrt(p["moving.variance"] + 1e-3)
    want = (x - p["moving.mean"]) / s * p["weight"] + p["bias"]
    np.testing.assert_allclose(y, want)
    if how == "frozen":
        dx = layer.backward(np.ones_like(y))
        np.testing.assert_allclose(dx, np.broadcast_to(p["weight"] / s, x.shape))
        assert not layer.flat_grads.any()
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_no_optimiser_moves_the_statistics(rng):
    """Not one with weight decay, nor after all of a model was made trainable."""
    model = fastrnn.Sequential(BatchNormalization(), fastrnn.Linear(None, 1, seed=0))
    model.build((F,))
    model.trainable = False
    model.trainable = True
    assert model[0].trainable
    optimizer = fastrnn.AdamW(model, lr=0.1, weight_decay=0.5)
    model.flat_grads[...] = 1
    before = model.state_dict()
    optimizer.step()
    changed = {
        name for name, array in model.state_dict().items()
        if not np.array_equal(array, before[name])
    }  # fmt: skip
    assert changed == {"0.weight", "0.bias", "1.weight", "1.bias"}


def model_of(**options):
    return fastrnn.Sequential(
        fastrnn.LSTM(None, 6, seed=0),
        BatchNormalization(**options),
        fastrnn.Linear(None, 1, seed=1),
    )


def test_fit_save_resume(tmp_path, rng, capsys):
    x = rng.normal(size=(40, T, F)).astype("f")
    y = x[..., :1] * 3
    model = model_of(momentum=0.5)
    assert repr(model[1]) == "BatchNormalization(num_features=None, momentum=0.5)"
    model.compile("mse", "adam", lr=0.01)
    options = {"verbose": 0, "seed": 3}
    save = fastrnn.callbacks.ModelCheckpoint(
        tmp_path / "run", "loss", save_best_only=False
    )
    model.fit(x, y, epochs=2, **options, callbacks=[save])
    history = model.fit(
        x, y, epochs=4, **options, resume=tmp_path / "run", callbacks=[save]
    )
    assert history.history["loss"][-1] < history.history["loss"][0]
    unbroken = model_of(momentum=0.5)
    unbroken.compile("mse", "adam", lr=0.01)
    unbroken.fit(x, y, epochs=4, **options)
    np.testing.assert_array_equal(unbroken.flat_parameters, model.flat_parameters)
    assert repr(model[1]) == "BatchNormalization(num_features=6, momentum=0.5)"
    model.save(tmp_path / "model")
    again = fastrnn.load_model(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
        other[1].parameters["moving.mean"][...] = 7
        assert not (model[1].parameters["moving.mean"] == 7).any()
    model.summary()
    out = capsys.readouterr().out
    assert "BatchNormalization" in out
    assert "12 are not" in out.replace(",", "")


def test_messages(rng):
    for call, error, message in (
        (lambda: made(axis=0)(np.ones((2, F))), ValueError, "axis must be an axis of"),
        (lambda: made(axis=3)(np.ones((2, F))), ValueError, "got 3 for x of shape"),
        (
            lambda: made()(np.ones((2, 4))),
            ValueError,
            r"must have num_features = 3 on axis -1, got shape \(2, 4\)",
        ),
        (lambda: made(momentum=2), ValueError, r"momentum must be a number in \[0, 1"),
        (lambda: made(epsilon=0), ValueError, r"epsilon must be a number in \(0, inf"),
        (lambda: BatchNormalization(center=1), TypeError, "center must be True or Fal"),
        (
            lambda: made(axis=1, num_features=T)(np.ones((N, T, F)), mask=MASK),
            ValueError,
            "mask must be of axes before that of features",
        ),
        (
            lambda: made()(np.ones((N, T, F)), mask=MASK.T),
            ValueError,
            "BatchNormalization: mask must have the shape",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def test_nothing_moves_when_a_forward_fails(rng):
    layer = made()
    before = layer.state_dict()
    with pytest.raises(ValueError, match="mask must"):
        layer(rng.normal(size=(N, T, F)), mask=np.ones((9, 9), bool))
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
