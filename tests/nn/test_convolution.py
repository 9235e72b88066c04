# SPDX-License-Identifier: BSD-3-Clause
"""`Conv1D`: written out in float64, slopes, PyTorch's weights, messages."""

import copy

import numpy as np
import pytest
from slopes import check_gradients
from tolerances import relative

import fastrnn
from fastrnn import Conv1D

N, T, F, O = 2, 9, 3, 4

OPTIONS = [
    {},
    {"strides": 2},
    {"padding": "same"},
    {"padding": "same", "strides": 2},
    {"padding": "causal", "dilation_rate": 2},
    {"dilation_rate": 3, "use_bias": False},
    {"padding": "same", "activation": "relu"},
    {"activation": "tanh", "strides": 3},
]


def written_out(layer, x):
    """Every output as the sum that it is."""
    k, d, s = layer.kernel_size, layer.dilation_rate, layer.strides
    span = (k - 1) * d + 1
    before, n = 0, (T - span) // s + 1
    if layer.padding != "valid":
        n = -(-T // s)
        before = span - 1
        if layer.padding == "same":
            before = max((n - 1) * s + span - T, 0) // 2
    W, b = layer.parameters["weight"], layer.parameters.get("bias", np.zeros(O))
    y = np.zeros((N, n, O))
    for t in range(n):
        y[:, t] = b
        for j in range(k):
            at = t * s + j * d - before
            if 0 <= at < T:
                y[:, t] += x[:, at] @ W[:, :, j].T
    functions = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}
    return functions.get(layer.activation, lambda z: z)(y)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_results_and_slopes(options, rng, dtype):
    layer = Conv1D(
        O, 3, **options, in_channels=F, batch_first=True, dtype=dtype, seed=0
    )
    x = rng.normal(size=(N, T, F)).astype(dtype)
    y, want = layer(x), written_out(layer, x)
    assert y.dtype == dtype
    tolerance = relative(dtype, 3 * F) * np.abs(want).max()
    np.testing.assert_allclose(y, want, rtol=0, atol=tolerance)
    if dtype == "float64":
        w = rng.normal(size=y.shape)
        layer.flat_grads[...] = 1
        dx = layer.backward(w)
        check_gradients(lambda: (layer(x) * w).sum(), layer, {"x": dx}, {"x": x})
    layer.batch_first = False
    np.testing.assert_array_equal(layer(x.swapaxes(0, 1)), y.swapaxes(0, 1))
    np.testing.assert_array_equal(fastrnn.Sequential(layer)(x), y)


def test_weights_of_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.nn.Conv1d(F, O, 3, stride=2)
    ours = Conv1D(O, 3, 2, in_channels=F, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x = rng.normal(size=(N, T, F)).astype("f")
    with torch.no_grad():
        want = theirs(torch.tensor(x).mT).mT.numpy()
    np.testing.assert_allclose(ours(x), want, atol=relative("float32", 3 * F))


def test_a_row_has_the_bits_it_has_alone(rng):
    x = rng.normal(size=(33, T, F)).astype("f")
    model = fastrnn.Sequential(Conv1D(O, 3, in_channels=F, seed=0)).eval()
    whole = model(x)
    for row in (0, 7, 32):
        np.testing.assert_array_equal(model(x[row : row + 1])[0], whole[row])


def test_in_a_model(tmp_path, rng):
    """Sizes are found, and the model fits, is saved, loaded and copied."""
    model = fastrnn.Sequential(
        Conv1D(8, 3, padding="causal", activation="relu", seed=0),
        fastrnn.MaxPooling1D(),
        fastrnn.LSTM(None, 6, return_sequences=False, seed=1),
        fastrnn.Linear(None, 1, seed=2),
    )
    assert repr(model[0]).startswith("Conv1D(in_channels=None, filters=8")
    x = rng.normal(size=(50, T, F)).astype("f")
    model.compile("mse", "adam", lr=0.01)
    losses = model.fit(x, x[:, 0, :1], epochs=4, verbose=0, seed=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model")
    for again in (fastrnn.load_model(tmp_path / "model"), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
    model[0].trainable = False
    before = model[0].state_dict()
    model.fit(x, x[:, 0, :1], verbose=0, seed=0)
    for name, array in model[0].state_dict().items():
        np.testing.assert_array_equal(array, before[name])


class Own(fastrnn.Model):
    """A model of one's own that does not know its sizes."""

    def __init__(self):
        self.conv = Conv1D(5, 3, batch_first=True)
        self.norm = fastrnn.BatchNormalization(center=False, scale=False)

    def forward(self, x):
        return self.norm(self.conv(x))

    def backward(self, dy):
        return self.conv.backward(self.norm.backward(dy))


def test_sizes_of_a_model_of_ones_own_in_a_file(tmp_path, rng):
    model = Own().build((T, F))
    model.save(tmp_path / "model")
    again = fastrnn.load_model(tmp_path / "model", {"Own": Own})
    x = rng.normal(size=(N, T, F)).astype("f")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Conv1D(0, 3), "filters must be a positive integer, got 0"),
        (lambda: Conv1D(4, 3, padding="full"), "one of 'valid', 'same', 'causal'"),
        (
            lambda: Conv1D(4, 3, 2, dilation_rate=2),
            "strides and dilation_rate must not both be above 1, got 2 and 2",
        ),
        (lambda: Conv1D(4, 3, activation="swish"), "activation must be one of 'elu'"),
        (
            lambda: Conv1D(4, 3, in_channels=3)(np.ones((2, 1, 3))),
            "Conv1D: x must have as many steps as a window, 3, got 2",
        ),
        (
            lambda: Conv1D(4, 3, in_channels=3)(np.ones((5, 1, 2))),
            r"x must have shape \(T, B, in_channels\) = \(T, B, 3\), got \(5, 1, 2\)",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
