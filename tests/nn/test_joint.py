# SPDX-License-Identifier: BSD-3-Clause
"""Layers that see some rows of a joint batch: as in the layer that sees them all.

One layer's output for the whole batch is the judge of copies of it that see parts.
"""

import copy

import numpy as np
import pytest

import fastrnn
from fastrnn.nn import joint

N, T, F = 6, 5, 3


def parts(layer, x, dy, cut):
    """Outputs and input gradients of copies of a layer, each of some rows."""
    found = []
    for first, last in ((0, cut), (cut, N)):
        own = copy.deepcopy(layer)
        with joint.sharing(joint.Share(last - first, first, N)):
            y = own(x[first:last])
            y = y[0] if isinstance(y, tuple) else y
            dx = own.backward(dy[first:last])
            dx = dx[0] if isinstance(dx, tuple) else dx
        found.append((y, dx))
    return [np.concatenate(one) for one in zip(*found, strict=True)]


@pytest.mark.parametrize("cut", [1, 3])
@pytest.mark.parametrize(
    "layer",
    [
        fastrnn.Dropout(0.4, seed=1),
        fastrnn.SpatialDropout1D(0.4, seed=1, batch_first=True),
        fastrnn.TimeDistributed(fastrnn.Dropout(0.4, seed=1)),
        fastrnn.LSTM(F, F, 3, dropout=0.4, batch_first=True, seed=1),
        fastrnn.GRU(F, F, 2, dropout=0.4, batch_first=True, seed=1, checkpoint_every=2),
        fastrnn.LSTM(
            F, F, 2, dropout=0.4, batch_first=True, seed=1, connection="residual"
        ),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_dropout_makes_the_choices_of_the_whole_batch(layer, cut, rng):
    x, dy = rng.standard_normal((2, N, T, F)).astype("f")
    whole = copy.deepcopy(layer)
    want = whole(x)
    want = want[0] if isinstance(want, tuple) else want
    dx = whole.backward(dy)
    dx = dx[0] if isinstance(dx, tuple) else dx
    found = parts(layer, x, dy, cut)
    np.testing.assert_allclose(found[0], want, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(found[1], dx, rtol=2e-5, atol=1e-6)


def test_a_stream_of_its_own_makes_other_choices():
    x = np.ones((4, 500), "f")
    found = []
    for stream in (0, 1):
        with joint.sharing(joint.Share(4, stream=stream)):
            found.append(fastrnn.Dropout(0.5, seed=1)(x) == 0)
    agree = (found[0] == found[1]).mean()
    assert abs(agree - 0.5) < 5 * np.sqrt(0.25 / x.size)


def test_samples_are_on_the_first_axis():
    layer, x = fastrnn.Dropout(0.5, seed=1), np.ones((5, 4), "f")
    with joint.sharing(joint.Share(3)):
        with pytest.raises(ValueError, match="Dropout: x must have the axis of sampl"):
            layer(x)
        with pytest.raises(ValueError, match=r"got shape \(5, 4\) for 3 samples"):
            layer.eval()(x)


def test_dropout_between_layers_goes_with_whole_sequences_alone():
    layer = fastrnn.LSTM(F, F, 2, dropout=0.5, batch_first=True, seed=1).eval()
    x = np.ones((2, T, F), "f")
    with joint.sharing(joint.Share(2)):
        layer(x)
        with pytest.raises(ValueError, match="LSTM: dropout must be 0 in a distribut"):
            layer(x, lengths=[3, 5])
