# SPDX-License-Identifier: BSD-3-Clause
"""Cells whose recurrence is elementwise: what is theirs alone."""

import numpy as np
import pytest

import fastrnn
from fastrnn.native import core

KINDS = [fastrnn.IndRNN, fastrnn.MinGRU, fastrnn.MinLSTM, fastrnn.SRU]
each = pytest.mark.parametrize("cls", KINDS)


def training_step(layer, x, dy, **given):
    y, _ = layer(x, **given)
    dx, _ = layer.backward(dy)
    return [y, dx, *(grad.copy() for grad in layer.grads.values())]


@each
@pytest.mark.parametrize("sizes", [(70, 5, 9, 33), (40, 32, 33, 33), (300, 1, 20, 70)])
def test_bits_do_not_depend_on_threads_checkpoints_or_targets(cls, sizes, rng):
    T, B, I, H = sizes
    x = rng.standard_normal((T, B, I)).astype("f")
    dy = rng.standard_normal((T, B, H)).astype("f")
    lengths = rng.integers(1, T + 1, B)
    found = []
    targets = [name for name in core.SUPPORTED if name != "baseline"]
    for target in targets:
        for n_threads, every in ((1, None), (2, 7), (7, None)):
            with core.use_isa(target):
                before = fastrnn.get_num_threads()
                fastrnn.set_num_threads(n_threads)
                try:
                    layer = cls(I, H, checkpoint_every=every, seed=0)
                    got = training_step(layer, x, dy)
                    layer.zero_grad()
                    got += training_step(layer, x, dy, lengths=lengths)
                finally:
                    fastrnn.set_num_threads(before)
            found.append(got)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@each
def test_a_row_alone_and_a_stream_have_the_bits_of_a_batch(cls, rng):
    layer = cls(9, 21, num_layers=2, seed=0).eval()
    x = rng.standard_normal((13, 30, 9)).astype("f")
    y, _ = layer(x)
    for b in (0, 17, 29):
        np.testing.assert_array_equal(layer(x[:, b : b + 1])[0], y[:, b : b + 1])
    stream = layer.stream(30)
    for x_t, y_t in zip(x, y, strict=True):
        np.testing.assert_array_equal(stream.step(np.ascontiguousarray(x_t)), y_t)


@each
def test_resets_begin_anew(cls, rng):
    layer = cls(4, 6, seed=0)
    x = rng.standard_normal((8, 3, 4)).astype("f")
    resets = np.zeros((8, 3), bool)
    resets[5] = True
    y, _ = layer(x, resets=resets)
    np.testing.assert_array_equal(y[5:], layer(x[5:])[0])


@pytest.mark.parametrize("cls", [fastrnn.MinGRU, fastrnn.MinLSTM])
def test_candidates_of_log_space_are_positive(cls, rng):
    """h is a mean of positive numbers and of the initial state."""
    layer = cls(5, 40, log_space=True, seed=0)
    y, _ = layer(10 * rng.standard_normal((20, 4, 5)).astype("f"))
    assert (y > 0).all()
    plain = cls(5, 40, seed=0)
    assert (plain(10 * rng.standard_normal((20, 4, 5)).astype("f"))[0] < 0).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [50, 1e4, 1e30])
def test_gates_of_a_min_lstm_that_are_both_shut(dtype, size):
    """f / (f + i) with f and i too small for the dtype: neither NaN nor infinite."""
    layer = fastrnn.MinLSTM(1, 1, dtype=dtype, seed=0)
    layer.parameters["weight_ih_l0"][...] = [[-size], [-size], [1.0]]
    layer.parameters["bias_ih_l0"][...] = 0
    y, _ = layer(np.ones((3, 1, 1), dtype))
    np.testing.assert_allclose(y[:, 0, 0], [0.5, 0.75, 0.875], rtol=1e-5)
    dx, d_h = layer.backward(np.ones_like(y))
    assert np.isfinite(dx).all()
    np.testing.assert_allclose(d_h, 0.5 + 0.25 + 0.125, rtol=1e-5)


def test_recurrent_weights_of_an_indrnn_are_bounded_by_its_time_steps():
    bound = 2 ** (1 / 20)
    for init in ("keras", "torch"):
        layer = fastrnn.IndRNN(3, 4000, time_steps=20, init=init, seed=0)
        u = layer.parameters["weight_hh_l0"]
        assert 0 <= u.min() < 0.01
        assert 0.99 * bound < u.max() <= bound * (1 + 1e-6)
    with pytest.raises(ValueError, match="IndRNN: time_steps must be"):
        fastrnn.IndRNN(3, 4, time_steps=0)


def test_an_indrnn_adds_two_numbers_among_a_hundred(rng):
    """The paper's adding problem; `examples/long_memory.py` has it at a thousand.

    Whoever remembers nothing has 0.1667.
    """
    T, B = 100, 16

    def batches():
        while True:
            x = np.zeros((B, T, 2), "f")
            x[..., 0] = rng.random((B, T))
            rows = np.arange(B)
            marked = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B)
            for at in marked:
                x[rows, at, 1] = 1
            yield x, sum(x[rows, at, 0] for at in marked)[:, None]

    layer = fastrnn.IndRNN(2, 32, 2, time_steps=T, return_sequences=False, seed=0)
    model = fastrnn.Sequential(layer, fastrnn.Linear(32, 1, seed=1))
    model.compile("mse", "adam", lr=5e-3)
    losses = []

    def stop(epoch, logs):
        losses.append(logs["loss"])
        model.stop_training = losses[-1] < 0.02
        u = layer.parameters["weight_hh_l0"]
        assert np.abs(u).max() <= np.float32(2 ** (1 / T))

    ends = fastrnn.callbacks.LambdaCallback(on_epoch_end=stop)
    model.fit(batches(), epochs=30, steps_per_epoch=100, callbacks=[ends],
              clip_norm=1.0, verbose=0)  # fmt: skip
    assert losses[-1] < 0.02


def test_an_sru_keeps_the_variance_of_x_at_first(rng):
    """What alpha is for, as section 3.2 of the paper argues."""
    x = rng.standard_normal((60, 64, 256)).astype("f")
    for bias in (0.0, -2.0):
        layers = [
            fastrnn.SRU(256, 256, highway_bias=bias, rescale=rescale, seed=0)
            for rescale in (True, False)
        ]
        assert (layers[0].parameters["bias_ih_l0"][256:] == bias).all()
        scaled, plain = (float(layer(x)[0][20:].var()) for layer in layers)
        assert 0.6 < scaled < 1.8
        assert plain < scaled


@each
def test_functions_of_the_cell_are_not_for_users_to_choose(cls):
    message = rf"{cls.__name__}\(\) has no argument 'activation'"
    with pytest.raises(TypeError, match=message):
        cls(2, 3, activation="relu")


def torch_step(kind, torch, a, state, x, p):
    """One step of each cell in PyTorch, from the paper."""
    if kind == "IndRNN":
        return torch.relu(a + p["weight_hh_l0"] * state)
    if kind == "MinGRU":
        z, n = a.chunk(2, -1)
        return torch.lerp(state, n, z.sigmoid())
    if kind == "MinLSTM":
        f, i, n = a.chunk(3, -1)
        f, i = f.sigmoid(), i.sigmoid()
        return (f * state + i * n) / (f + i)
    raise AssertionError(kind)


@pytest.mark.parametrize("cls", KINDS[:3])
def test_gradients_are_those_of_autograd(cls, rng):
    torch = pytest.importorskip("torch")
    layer = cls(7, 12, dtype="float64", seed=0)
    p = {k: torch.tensor(v, requires_grad=True) for k, v in layer.parameters.items()}
    x = torch.tensor(rng.standard_normal((11, 3, 7)), requires_grad=True)
    state, ys = torch.zeros(3, 12, dtype=torch.float64), []
    for x_t in x:
        a = x_t @ p["weight_ih_l0"].T + p["bias_ih_l0"]
        state = torch_step(cls.__name__, torch, a, state, x_t, p)
        ys.append(state)
    want = torch.stack(ys)
    y, _ = layer(x.detach().numpy())
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-10, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    want.backward(torch.tensor(dy))
    dx, _ = layer.backward(dy)
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, p[name].grad.numpy(), rtol=1e-9, atol=1e-12)
