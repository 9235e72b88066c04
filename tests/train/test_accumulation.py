# SPDX-License-Identifier: BSD-3-Clause
"""`gradient_accumulation_steps`: small batches that step as one large one."""

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback, ModelCheckpoint

N, T, F = 11, 5, 3


def made(dtype="float64"):
    model = fastrnn.Sequential(
        fastrnn.Masking(),
        fastrnn.LSTM(F, 4, seed=1, dtype=dtype),
        fastrnn.Linear(4, 3, seed=2, dtype=dtype),
    )
    model.compile("sparse_categorical_crossentropy", "sgd", ["accuracy"], lr=0.5)
    return model


def data():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, T, F)), rng.integers(0, 3, (N, T))
    for i in range(N):  # batches differ in what counts
        x[i, 1 + i % T :] = 0
        y[i, i % T] = -100
    return x, y


def trained(batch_size, together, **options):
    model = made()
    history = model.fit(
        *data(), batch_size, 2, 0, shuffle=False, clip_norm=0.3,
        gradient_accumulation_steps=together, **options,
    )  # fmt: skip
    return model.flat_parameters.copy(), history.history


@pytest.mark.parametrize("together", [2, 3, 20])
def test_batches_step_as_the_batch_that_they_are_together(together):
    found, history = trained(2, together)
    want, of_large = trained(min(2 * together, N), 1)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-14)
    np.testing.assert_allclose(history["accuracy"], of_large["accuracy"], rtol=1e-13)


def test_a_group_of_one_has_the_bits_of_before():
    model = made()
    model.fit(*data(), 2, 2, 0, shuffle=False, clip_norm=0.3)
    assert model.flat_parameters.tobytes() == trained(2, 1)[0].tobytes()


def test_a_batch_of_callbacks_is_a_step():
    class Counting(Callback):
        def __init__(self):
            self.begun, self.ended, self.gradients = [], [], []

        def on_train_batch_begin(self, batch, logs=None):
            self.begun.append(batch)

        def on_gradients(self, batch):
            self.gradients.append(float(np.abs(self.model.flat_grads).max()))

        def on_train_batch_end(self, batch, logs=None):
            self.ended.append(batch)

    counting = Counting()
    trained(2, 4, callbacks=[counting])
    assert counting.begun == counting.ended == [0, 1] * 2  # of six batches an epoch
    assert counting.run.steps == 2
    assert len(counting.gradients) == 4


def test_it_is_an_option_of_the_run(tmp_path):
    path = tmp_path / "run.safetensors"
    trained(2, 4, callbacks=[ModelCheckpoint(path)])
    with pytest.raises(ValueError, match="the run's options must be"):
        trained(2, 2, callbacks=[ModelCheckpoint(path)], resume=path)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_bad_values(value, error):
    rule = "fit: gradient_accumulation_steps must be a positive integer"
    with pytest.raises(error, match=rule):
        trained(2, value)


def test_windows_have_steps_of_their_own():
    with pytest.raises(ValueError, match="must be 1 with tbptt, where every window"):
        trained(2, 2, tbptt=2)
