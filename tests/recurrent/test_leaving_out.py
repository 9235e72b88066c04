# SPDX-License-Identifier: BSD-3-Clause
"""What recurrent layers leave out at random, and that all see the same choices."""

import copy

import left_out
import numpy as np
import pytest

import fastrnn
from fastrnn.native import core
from fastrnn.nn import joint

T, B, I, H = 9, 5, 7, 19
OPTIONS = {
    "zoneout": {"zoneout": 0.3},
    "h": {"recurrent_dropout": 0.4},
    "per_gate": {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "per_gate"},
    "candidate": {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "candidate"},
    "input": {"input_dropout": 0.3},
    "all": {
        "zoneout": 0.2,
        "recurrent_dropout": 0.3,
        "recurrent_dropout_mode": "per_gate",
        "input_dropout": 0.2,
    },
}
CELLS = {
    "rnn": (fastrnn.RNN, {}),
    "lstm": (fastrnn.LSTM, {}),
    "gru": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
}
GENERAL = {
    "lstm-proj": (fastrnn.LSTM, {"proj_size": 6}),
    "lstm-peephole": (fastrnn.LSTM, {"peephole": True}),
    "gru-clip": (fastrnn.GRU, {"cell_clip": 1.0}),
    "rnn-elu": (fastrnn.RNN, {"activation": "elu"}),
    "mgu": (fastrnn.MGU, {}),
    "both": (fastrnn.LSTM, {"bidirectional": True, "num_layers": 2}),
}
DROPPED = {"weight_drop": {"weight_drop": 0.5}}


def cases(cells, options):
    return [
        pytest.param(*cells[cell], options[name], id=f"{cell}-{name}")
        for cell in cells
        for name in options
        if name != "candidate" or cells[cell][0] in (fastrnn.LSTM, fastrnn.GRU)
    ]


def series(*shape, seed=1, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def made(cls, *options, dtype="float64", **more):
    given = {name: value for some in options for name, value in some.items()}
    return cls(I, H, seed=3, dtype=dtype, **given, **more)


@pytest.mark.parametrize(("cls", "more", "options"), cases(CELLS, OPTIONS))
def test_equations(cls, more, options):
    """The outputs of a step written from the papers, with the same choices."""
    layer, x = made(cls, more, options), series(T, B, I)
    for _ in range(2):  # each call has choices of its own
        key = left_out.next_key(layer)
        np.testing.assert_allclose(layer(x)[0], left_out.run(layer, x, key), atol=1e-12)


@pytest.mark.parametrize(
    ("cls", "more", "options"), cases(CELLS | GENERAL, OPTIONS | DROPPED)
)
def test_gradients(cls, more, options, rng):
    """Central differences of the call that backward belongs to."""
    layer, x = made(cls, more, options), series(T, B, I)
    before = layer._dropout_seeds.bit_generator.state
    y, _ = layer(x)
    dy = series(*y.shape, seed=2)
    dx, _ = layer.backward(dy)

    def loss():
        layer._dropout_seeds.bit_generator.state = before
        return float((layer(x)[0] * dy).sum())

    arrays = [(x, dx), *((layer.parameters[n], layer.grads[n]) for n in layer.grads)]
    for array, gradient in arrays:
        for at in rng.integers(0, array.size, 3):
            place = np.unravel_index(at, array.shape)
            value, found = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = value + step
                found.append(loss())
            array[place] = value
            want = (found[0] - found[1]) / 2e-6
            assert gradient[place] == pytest.approx(want, abs=1e-6)


def results(layer, x, **call):
    y, _ = layer(x, **call)
    dx, _ = layer.backward(series(*y.shape, seed=2, dtype=y.dtype))
    return [y, dx, *(layer.grads[name].copy() for name in layer.grads)]


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(
    ("cls", "more", "options"), cases(CELLS | GENERAL, OPTIONS | DROPPED)
)
def test_same_bits(cls, more, options, kind):
    """On targets with FMA, for any number of threads, and in blocks of steps."""
    targets = [name for name in core.SUPPORTED if name != "baseline"] or core.SUPPORTED
    want = None
    for target, n_threads, every in (
        (targets[0], 1, None), (targets[-1], 1, 4), (targets[0], 2, 2),
        (targets[-1], 7, None),
    ):  # fmt: skip
        before = fastrnn.get_num_threads()
        fastrnn.set_num_threads(n_threads)
        try:
            with core.use_isa(target):
                layer = made(cls, more, options, dtype=kind, checkpoint_every=every)
                got = results(layer, series(T, B, I, dtype=kind))
        finally:
            fastrnn.set_num_threads(before)
        want = want or got
        for one, other in zip(got, want, strict=True):
            assert (one == other).all()


@pytest.mark.parametrize(("cls", "more", "options"), cases(CELLS, OPTIONS))
def test_choices_are_the_callers(cls, more, options):
    """Of a step and a sequence: whatever lengths, masks and resets do to them."""
    x, lengths = series(T, B, I), np.array([3, 9, 1, 7, 9])
    layer = made(cls, more, options)
    key = left_out.next_key(layer)
    y, _ = layer(x, lengths=lengths)
    whole = left_out.run(layer, x, key)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(y[:n, b], whole[:n, b], atol=1e-12)
    mask = series(B, T, seed=5) > -0.5
    key = left_out.next_key(layer)
    y, _ = layer(x, mask=mask)
    for b in range(B):
        some = np.flatnonzero(mask[b])
        want = left_out.run(
            layer, x[some, b : b + 1], key, rows=np.array([b]), steps=some
        )
        np.testing.assert_allclose(y[some, b : b + 1], want, atol=1e-12)
    resets = np.zeros((T, B), bool)
    resets[4, 2] = True
    key = left_out.next_key(layer)
    y, _ = layer(x, resets=resets)
    want = left_out.run(
        layer, x[4:, 2:3], key, rows=np.array([2]), steps=np.arange(4, T)
    )
    np.testing.assert_allclose(y[4:, 2:3], want, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_some_rows_of_a_joint_batch(options):
    """A process that has some rows makes the choices of one that has all."""
    x = series(T, B, I)
    whole, _ = made(fastrnn.LSTM, options)(x)
    with joint.sharing(joint.Share(2, 3, B)):
        part, _ = made(fastrnn.LSTM, options)(x[:, 3:])
    assert (part == whole[:, 3:]).all()


def test_directions_and_layers_choose_for_themselves():
    layer = fastrnn.RNN(
        I, H, num_layers=2, bidirectional=True, zoneout=0.5, seed=0, dtype="float64"
    )
    x, key = series(T, B, I), left_out.next_key(layer)
    y, _ = layer(x)
    kept = [left_out.chosen(0.5, key, k, "zoneout_h", np.arange(B), H, np.arange(T))
            for k in range(4)]  # fmt: skip
    ahead, back = y[..., :H], y[..., H:]
    assert ((ahead[1:] == ahead[:-1]) == kept[2][1:]).all()
    assert ((back[1:] == back[:-1]) == kept[3][:-1]).all()
    for one in range(4):
        for other in range(one):
            assert abs((kept[one] == kept[other]).mean() - 0.5) < 0.06


# -- statistics ------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_zoneout_rate_and_independence(p):
    layer = fastrnn.RNN(1, 64, zoneout=p, seed=0, dtype="float64")
    y = np.array([layer(series(50, 16, 1, seed=k))[0] for k in range(4)])
    kept = y[:, 1:] == y[:, :-1]
    n = kept.size
    assert abs(kept.mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
    for axis in range(4):  # of calls, steps, rows, units: neighbours agree by chance
        a, b = (np.take(kept, range(s, kept.shape[axis] - 1 + s), axis) for s in (0, 1))
        agree = p * p + (1 - p) ** 2
        assert abs((a == b).mean() - agree) < 6 * np.sqrt(agree * (1 - agree) / a.size)


@pytest.mark.parametrize("p", [0.2, 0.7])
@pytest.mark.parametrize("name", ["input_dropout", "recurrent_dropout"])
def test_dropout_rate_and_one_mask_over_time(name, p):
    """Of a linear layer that hands on its inputs, or its state."""
    options = {"activation": "linear", "dtype": "float64", "seed": 0, name: p}
    layer = fastrnn.RNN(64, 64, bias=False, **options)
    W, R = layer.parameters["weight_ih_l0"], layer.parameters["weight_hh_l0"]
    W[...], R[...] = np.eye(64), 0.0
    x = np.ones((6, 200, 64))
    h0 = None
    if name == "recurrent_dropout":
        R[...] = np.eye(64)
        x[...], h0 = 0.0, np.ones((1, 200, 64))
    factors = layer(x, h0)[0].copy()
    if h0 is not None:  # h_t is h_{t-1} times the mask
        before = factors[:-1].copy()
        factors[1:][before > 0] /= before[before > 0]
    assert (np.isclose(factors, 0) | np.isclose(factors, 1 / (1 - p))).all()
    assert (np.isclose(factors, factors[0])).all()  # the same at all steps
    dropped = np.isclose(factors[0], 0)
    assert abs(dropped.mean() - p) < 5 * np.sqrt(p * (1 - p) / dropped.size)
    again = np.isclose(layer(x, h0)[0][0], 0)
    assert abs((again == dropped).mean() - (p * p + (1 - p) ** 2)) < 0.03


def test_gates_have_masks_of_their_own():
    key = 99
    masks = [left_out.chosen(0.5, key, 0, "recurrent", np.arange(200), 64, gate=g)
             for g in range(4)]  # fmt: skip
    for g in range(4):
        assert abs(masks[g].mean() - 0.5) < 0.03
        for other in range(g):
            assert abs((masks[g] == masks[other]).mean() - 0.5) < 0.03


def test_dropped_weights():
    """R is masked and scaled, one choice a call; its gradient is masked likewise."""
    layer = fastrnn.LSTM(I, 64, weight_drop=0.3, seed=0, dtype="float64")
    x = series(T, B, I)
    y, _ = layer(x)
    layer.backward(np.ones_like(y))
    zero = layer.grads["weight_hh_l0"] == 0
    assert abs(zero.mean() - 0.3) < 5 * np.sqrt(0.21 / zero.size)
    plain = fastrnn.LSTM(I, 64, seed=0, dtype="float64")
    plain.load_state_dict(layer.state_dict())
    R = plain.parameters["weight_hh_l0"]
    R[...] = np.where(zero, 0, R / 0.7)
    np.testing.assert_allclose(plain(x)[0], y, atol=1e-12)
    layer.zero_grad()
    layer.backward(np.ones_like(layer(x)[0]))
    assert (zero != (layer.grads["weight_hh_l0"] == 0)).any()


# -- inference -------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "more"), CELLS.values(), ids=CELLS)
def test_inference_has_expectations(cls, more):
    """Zoneout interpolates, nothing else is left out; a stream has the same bits."""
    x = series(T, B, I)
    layer = made(cls, more, OPTIONS["all"], DROPPED["weight_drop"]).eval()
    same = layer(x)[0]
    assert (same == layer(x)[0]).all()
    stream = layer.stream(B)
    assert (np.array([stream.step(x_t).copy() for x_t in x]) == same).all()
    plain = made(cls, more).eval()
    state, kept = None, [np.zeros((1, B, H))] * 2
    for t in range(T):
        _, state = plain(x[t : t + 1], state)
        parts = [*state] if cls is fastrnn.LSTM else [state]
        kept = [0.2 * old + 0.8 * new for old, new in zip(kept, parts, strict=False)]
        state = kept[0] if len(kept) == 1 else tuple(kept)
        np.testing.assert_allclose(same[t], kept[0][0], atol=1e-12)


# -- what is saved, refused and described ----------------------------------------------


def fit(epochs, path=None, resume=None):
    model = fastrnn.Sequential(
        fastrnn.LSTM(3, 8, batch_first=True, return_sequences=False, seed=1,
                     zoneout=(0.1, 0.2), recurrent_dropout=0.3, weight_drop=0.2),
        fastrnn.Linear(8, 2, seed=2),
    )  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = series(12, 5, 3, dtype="float32"), np.arange(12) % 2
    calls = [fastrnn.callbacks.ModelCheckpoint(path)] if path else []
    model.fit(x, y, epochs=epochs, batch_size=4, seed=0, verbose=0, callbacks=calls,
              resume=resume)  # fmt: skip
    return model.flat_parameters.copy()


def test_resume_goes_on_with_the_next_choices(tmp_path):
    whole = fit(4)
    path = tmp_path / "run.safetensors"
    fit(2, path)
    assert (fit(4, path, path) == whole).all()


def test_a_layer_is_saved_with_its_options(tmp_path):
    layer = made(fastrnn.LSTM, {"zoneout": (0.1, 0.2), "weight_drop": 0.5})
    assert "zoneout=(0.1, 0.2), weight_drop=0.5" in repr(layer)
    path = tmp_path / "model.safetensors"
    fastrnn.Sequential(layer).save(path)
    (again,) = fastrnn.load_model(path)
    x = series(T, B, I)
    assert (again.eval()(x)[0] == layer.eval()(x)[0]).all()
    assert (copy.deepcopy(layer).train()(x)[0] == layer.train()(x)[0]).all()
    assert again.zoneout == (0.1, 0.2)


@pytest.mark.parametrize(
    ("cls", "options", "error", "message"),
    [
        (
            fastrnn.GRU,
            {"zoneout": (0.1, 0.2)},
            ValueError,
            "zoneout must be one",
        ),
        (fastrnn.LSTM, {"zoneout": (0.1,)}, ValueError, r"pair \(p_c, p_h\), got"),
        (fastrnn.LSTM, {"zoneout": "much"}, TypeError, r"a pair .*, got 'much'"),
        (fastrnn.LSTM, {"zoneout": 1.5}, ValueError, "zoneout must be a number in"),
        (fastrnn.RNN, {"recurrent_dropout": -1}, ValueError, "recurrent_dropout must"),
        (fastrnn.RNN, {"input_dropout": 2}, ValueError, "input_dropout must be a"),
        (fastrnn.RNN, {"weight_drop": 2}, ValueError, "weight_drop must be a num"),
        (
            fastrnn.RNN,
            {"recurrent_dropout_mode": "candidate"},
            ValueError,
            "RNN: recurrent_dropout_mode 'candidate' is for LSTM and GRU",
        ),
        (
            fastrnn.LSTM,
            {"recurrent_dropout_mode": "x"},
            ValueError,
            "recurrent_dropout_mode must be",
        ),
    ],
)
def test_refusals(cls, options, error, message):
    with pytest.raises(error, match=message):
        made(cls, options)
