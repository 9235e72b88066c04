# SPDX-License-Identifier: BSD-3-Clause
"""`Functional`: connections of layers: results, gradients, masks, fit, files."""

import copy

import damaged_files
import numpy as np
import pytest
from slopes import check_gradients

import fastrnn
from fastrnn import (
    GRU,
    LSTM,
    Add,
    Concatenate,
    Dropout,
    Embedding,
    Flatten,
    Functional,
    GlobalAveragePooling1D,
    Linear,
    Masking,
    Sequential,
)

N, T, F, H = 3, 5, 2, 4
D = {"dtype": "float64"}


def two_inputs(**options):
    """A series and words, a branch, and a layer that is used twice."""
    twice = Linear(H, H, activation="tanh", seed=3, **options)
    return Functional(
        ("series", "words"),
        [
            (LSTM(F, H, seed=0, **options), "series", "steps"),
            (Embedding(9, H, seed=1, **options), "words", "vectors"),
            (twice, "steps", "steps 2"),
            (twice, "vectors", "vectors 2"),
            (Add(), ("steps 2", "vectors 2", "steps"), "sum"),
            (Flatten(), "sum", "flat"),
            (Linear(T * H, 1, seed=2, **options), "flat", "y"),
        ],
        "y",
    )


def inputs(rng):
    return rng.normal(size=(N, T, F)), rng.integers(0, 9, (N, T))


def test_results_and_slopes(rng):
    model = two_inputs(**D)
    lstm, table, twice, _, _, head = model.layers
    series, words = inputs(rng)
    steps = lstm(series.swapaxes(0, 1))[0].swapaxes(0, 1)
    total = twice(steps) + twice(table(words)) + steps
    np.testing.assert_allclose(model(series, words), head(total.reshape(N, -1)))
    w = rng.normal(size=(N, 1))
    model(series, words)
    model.flat_grads[...] = 1
    dseries, dwords = model.backward(w)
    assert dwords is None
    check_gradients(
        lambda: (model(series, words) * w).sum(), model,
        {"series": dseries}, {"series": series},
    )  # fmt: skip


def states(cell, **options):
    """An encoder whose final states begin a decoder, and are an output, too."""
    rows = 1 + options.get("bidirectional", False)
    names = [f"state {k}" for k in range(rows * (2 if cell is LSTM else 1))]
    return Functional(
        ("source", "target"),
        [
            (cell(F, H, seed=0, **options, **D), "source", ("encoded", *names)),
            (cell(F, H, seed=1, **options, **D), ("target", *names), "decoded"),
            (Linear(rows * H, 2, seed=2, **D), "decoded", "y"),
        ],
        ("y", names[-1]),
    )


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_states_between_layers(cell, options, rng):
    model = states(cell, **options)
    encoder, decoder, head = model.layers
    x, target = rng.normal(size=(2, N, T, F))
    _, state = encoder(x.swapaxes(0, 1))
    want = head(decoder(target.swapaxes(0, 1), state)[0]).swapaxes(0, 1)
    y, last = model(x, target)
    np.testing.assert_allclose(y, want)
    np.testing.assert_allclose(last, (state[1] if cell is LSTM else state)[-1])
    w, v = rng.normal(size=y.shape), rng.normal(size=last.shape)
    model.flat_grads[...] = 1
    dx, dtarget = model.backward((w, v))

    def loss():
        y, last = model(x, target)
        return (y * w).sum() + (last * v).sum()

    check_gradients(
        loss, model, {"x": dx, "target": dtarget}, {"x": x, "target": target}
    )
    model.eval()
    found = model.predict((x, target), batch_size=2)
    np.testing.assert_array_equal(found[0], y)
    np.testing.assert_array_equal(found[1], last)


def test_several_outputs_for_sequences_of_many_lengths(rng):
    """Batches have one length each; the outputs are in the order of the samples."""
    model = Functional("x", [(GRU(F, H, seed=0), "x", ("y", "h"))], ("y", "h"))
    x = [rng.normal(size=(n, F)).astype("f") for n in (3, 5, 3, 1, 5)]
    steps, last = model.predict(x, batch_size=2)
    assert [row.shape for row in steps] == [(len(row), H) for row in x]
    for row, y, h in zip(x, steps, last, strict=True):
        np.testing.assert_array_equal(y[-1], h)
        np.testing.assert_array_equal(model(row[None])[1][0], h)


def test_an_output_without_gradient(rng):
    model = states(GRU)
    x, target = rng.normal(size=(2, N, T, F))
    last = model(x, target)[1]
    dx, dtarget = model.backward((None, np.ones_like(last)))
    assert dtarget is None
    assert dx.any()


def test_masks_go_along_the_connections(rng):
    """A mean of each branch's own steps that count, and of both after a merger."""
    model = Functional(
        ("a", "b"),
        [
            (Masking(), "a", "masked a"),
            (GRU(F, H, seed=0), "masked a", "steps a"),
            (GlobalAveragePooling1D(), "steps a", "mean a"),
            (Masking(), "b", "masked b"),
            (GRU(F, H, seed=0), "masked b", "steps b"),
            (Add(), ("steps a", "steps b"), "both"),
            (GlobalAveragePooling1D(), "both", "mean"),
            (Concatenate(), ("mean a", "mean"), "y"),
        ],
        "y",
    )
    a, b = rng.normal(size=(2, N, T, F)).astype("f")
    a[:, 3:] = b[:, 4:] = 0
    y = model(a, b)
    assert model.output_mask is None
    gru = model.layers[1]
    steps_a, steps_b = (Sequential(gru)(x[:, :n]) for x, n in ((a, 3), (b, 4)))
    longer = np.concatenate([steps_a, steps_a[:, -1:]], 1)  # repeated where masked
    want = np.concatenate([steps_a.mean(1), (longer + steps_b).mean(1)], -1)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    only = Functional("a", [(Masking(), "a", "m"), (GRU(F, 1), "m", "y")], "y")
    only(a)
    np.testing.assert_array_equal(only.output_mask, a.any(axis=-1))
    inside = Functional(
        "a", [(Masking(), "a", "m"), (Sequential(GRU(F, 1)), "m", "y")], "y"
    )
    inside(a)
    np.testing.assert_array_equal(inside.output_mask, a.any(axis=-1))


def test_a_mask_goes_into_a_model_inside(rng):
    """Into one of one input, and into one of several."""
    x = rng.normal(size=(N, T, F)).astype("f")
    x[:, 3:] = 0
    gru, mean = GRU(F, H, seed=0), GlobalAveragePooling1D()
    want = Sequential(gru)(x[:, :3]).mean(1)
    one = Functional("x", [(gru, "x", "steps"), (mean, "steps", "y")], "y")
    two = Functional(
        ("z", "x"),
        [(gru, "x", "steps"), (mean, "steps", "a"), (mean, "z", "b"),
         (Concatenate(), ("a", "b"), "y")],
        "y",
    )  # fmt: skip
    found = Sequential(Masking(), one)(x)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    around = Functional(
        "x", [(Masking(), "x", "masked"), (two, ("x", "masked"), "y")], "y"
    )
    found = around(x)
    np.testing.assert_allclose(found[:, :H], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, H:], x.mean(1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="mask must be a list of a mask or None for e"):
        two(x, x, mask=x.any(axis=-1))
    with pytest.raises(ValueError, match="Functional: mask must have the shape of"):
        one(x, mask=np.ones((2, 9), bool))


def test_fit_save_load(tmp_path, rng, capsys):
    model = Functional(
        ("series", "words"),
        [
            (LSTM(None, 8, return_sequences=False, seed=0), "series", "a"),
            (Embedding(9, 4, seed=1), "words", "vectors"),
            (GlobalAveragePooling1D(), "vectors", "b"),
            (Concatenate(), ("a", "b"), "both"),
            (Dropout(0.1, seed=4), "both", "fewer"),
            (Linear(None, 1, seed=2, activation="sigmoid"), "fewer", "y"),
        ],
        "y",
    )
    series, words = rng.normal(size=(60, T, F)), rng.integers(0, 9, (60, T))
    y = (series[:, 0, :1] > 0).astype(int)
    model.compile("binary_crossentropy", "adam", ["accuracy"], lr=0.03)
    assert not model.loss.from_logits  # the last layer makes probabilities
    history = model.fit(
        (series, words), y, epochs=25, verbose=0, seed=0, validation_split=0.2
    )
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    found = model.predict((series, words))
    assert np.mean((found > 0.5) == y) > 0.7
    assert model.evaluate((series, words), y)
    model.save(tmp_path / "model")
    for again in (fastrnn.load_model(tmp_path / "model"), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict((series, words)), found)
    model.summary()
    out = capsys.readouterr().out
    rows = [line.split()[:4] for line in out.splitlines()]
    assert ["both", "Concatenate", "(N,", "12)"] in rows
    assert ["y", "Linear", "(N,", "1)"] in rows


def test_a_layer_used_twice_is_saved_once(tmp_path, rng):
    model = two_inputs()
    model.save(tmp_path / "model")
    again = fastrnn.load_model(tmp_path / "model")
    assert len(again.layers) == 6
    x = inputs(rng)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_sizes_from_build(capsys):
    model = Functional(
        ("a", "b"),
        [
            (LSTM(None, H), "a", "x"),
            (Embedding(9, H), "b", "z"),
            (Add(), ("x", "z"), "y"),
        ],
        "y",
    )
    model.build([(T, F), (T,)])
    assert model.layers[0].input_size == F
    model.build([(None, F), (None,)])
    model.summary()
    assert "(N, 1," not in capsys.readouterr().out  # no size that nobody gave
    with pytest.raises(ValueError, match="a shape for each of the 2 inputs, got"):
        model.build([(T, F)])
    with pytest.raises(TypeError, match="the shape of a must be a tuple of integers"):
        model.build((T, F))


def test_indices_may_be_the_first_input(rng):
    """(N, T) is no sequence for the LSTM that runs first, on the other input."""
    model = Functional(
        ("words", "series"),
        [
            (LSTM(F, H, return_sequences=False), "series", "a"),
            (Embedding(9, H), "words", "vectors"),
            (GlobalAveragePooling1D(), "vectors", "b"),
            (Add(), ("a", "b"), "y"),
        ],
        "y",
    )
    series, words = inputs(rng)
    model.compile("mse")
    model.fit((words, series), np.zeros((N, H)), verbose=0)


def test_a_merger_at_the_end_is_not_taken_for_scores(rng):
    """Nobody knows whether a sum of probabilities is one: compile asks, or fit."""
    model = Functional(
        "x",
        [(Linear(F, 1, activation="sigmoid"), "x", "a"), (Add(), ("a", "a"), "y")],
        "y",
    )
    model.compile("binary_crossentropy")
    with pytest.raises(ValueError, match="from_logits"):
        model.fit(rng.normal(size=(N, F)), np.ones((N, 1)), verbose=0)


def one(layer=None, sources="x", name="y"):
    return (layer or Linear(F, F), sources, name)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Functional("x", [one(sources="z")], "y"),
            ValueError,
            r"calls\[0\] must be given inputs or outputs of calls before it, got 'z'",
        ),
        (
            lambda: Functional("x", [one(), one()], "y"),
            ValueError,
            "a name must be given once, got 'y' again",
        ),
        (
            lambda: Functional("x", [one()], "z"),
            ValueError,
            "outputs must be inputs or outputs of calls, got 'z'",
        ),
        (
            lambda: Functional(("x", "u"), [one()], "y"),
            ValueError,
            "inputs must all be used, got 'u'",
        ),
        (
            lambda: Functional("x", [one(sources=("x", "x"))], "y"),
            ValueError,
            "Linear must be given one array, got x, x",
        ),
        (lambda: Functional("x", [one(3)], "y"), TypeError, "must begin with a Module"),
        (lambda: Functional("x", [3], "y"), TypeError, r"must be \(layer, inputs, out"),
        (lambda: Functional(3, [one()], "y"), TypeError, "inputs must be a name or na"),
        (lambda: Functional((), [one()], "y"), ValueError, "inputs must have a name"),
        (
            lambda: Functional("x", [one()], "y")(np.ones((2, F)), np.ones((2, F))),
            ValueError,
            "Functional: inputs must be 1, x, got 2",
        ),
        (
            lambda: Functional(
                "x", [one(Linear(F, 2)), one(Linear(F, 2, dtype="float64"), "x", "z")],
                ("y", "z"),
            ),
            ValueError,
            "all layers must have one dtype",
        ),
        (
            lambda: Functional("x", [one()], ("y", "x")).compile("mse"),
            ValueError,
            "the model must have one output to be trained by fit, got 2",
        ),
        (
            lambda: Functional("x", [one(name=("y", "z"))], "y")(np.ones((2, F))),
            ValueError,
            "Linear must give as many arrays as its output has names, 2, got 1",
        ),
        (
            lambda: Functional(
                "x", [one(LSTM(F, F), ("x", "x"))], "y"
            )(np.ones((2, T, F))),
            ValueError,
            "LSTM must be given 2 initial states after its sequences, got 1",
        ),
        (
            lambda: Functional("x", [one()], "y").backward(np.ones((2, F))),
            RuntimeError,
            "Functional: backward needs a forward in training mode",
        ),
    ],
)  # fmt: skip
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_backward_that_fails_changes_nothing(rng):
    model = two_inputs(**D)
    model(*inputs(rng))
    with pytest.raises(ValueError, match="dy of y must have the shape of y"):
        model.backward(np.ones((N, 2)))
    assert not model.flat_grads.any()
    model.backward(np.ones((N, 1)))
    with pytest.raises(RuntimeError, match="context was already used"):
        model.backward(np.ones((N, 1)))


def test_a_file_cannot_make_a_layer_take_much(tmp_path):
    """A layer that waits for its size runs while the file is read."""
    model = Sequential(
        fastrnn.LayerNorm(None, elementwise_affine=False), fastrnn.RepeatVector(3)
    )
    model.build((F,))
    assert fastrnn.load_model(_with_n(model, tmp_path, 3)).layers
    for n in (10**7, 10**15):
        with pytest.raises(ValueError, match=r"RepeatVector: a layer in a file must"):
            fastrnn.load_model(_with_n(model, tmp_path, n))


def _with_n(model, tmp_path, n):

    path = tmp_path / "model"
    model.save(path)
    arrays, key, meta = damaged_files.unpacked(path)
    described = meta["model"]["arguments"]["layers"]
    described[0]["arguments"]["normalized_shape"] = None
    described[1]["arguments"]["n"] = n
    damaged_files.packed(path, arrays, key, meta)
    return path
