# SPDX-License-Identifier: BSD-3-Clause
"""Stateful layers in models: as in Keras the state goes on from call to call."""

import numpy as np
import pytest

import fastrnn
from fastrnn.recurrent import table

N, B, T, F = 8, 4, 5, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, T, F)).astype("f")
Y = RNG.normal(size=(N, 1)).astype("f")


def make(stateful=True, cell=fastrnn.LSTM, **options):
    model = fastrnn.Sequential(
        cell(F, 3, stateful=stateful, return_sequences=False, seed=0, **options),
        fastrnn.Linear(3, 1, seed=1),
    )
    model.compile("mse", "sgd", lr=0.1)
    return model


@pytest.mark.parametrize("cell", table.classes().values())
def test_predict_goes_on_where_the_call_before_ended(cell):
    """Batches and calls one after the other are one long sequence."""
    model, plain = make(cell=cell), make(False, cell)
    parts = [X[:B], X[B:], X[:B], X[B:]]
    long = [np.concatenate(parts[: i + 1], axis=1) for i in range(4)]
    expected = [plain.predict(x) for x in long]
    found = [*np.split(model.predict(X, batch_size=B), 2)]
    found += [*np.split(model.predict(X, batch_size=B), 2)]
    np.testing.assert_array_equal(found, expected)
    model.reset_states()
    np.testing.assert_array_equal(model.predict(X, batch_size=B)[:B], expected[0])
    # One batch of all is another thing, as the docstring says.
    model.reset_states()
    np.testing.assert_array_equal(model.predict(X, batch_size=N), plain.predict(X))


def test_evaluate_goes_on_too():
    model, plain = make(), make(False)
    model.predict(X[:B], batch_size=B)
    twice = np.concatenate([X[:B], X[B:]], axis=1)
    assert model.evaluate(
        X[B:], Y[B:], batch_size=B, return_dict=True
    ) == plain.evaluate(twice, Y[B:], return_dict=True)


def test_the_state_of_a_call_is_left_for_the_next_and_for_the_layer():
    model = make()
    model.predict(X, batch_size=B)
    h, c = (part.copy() for part in model[0].state)
    y = model.predict(X[:B], batch_size=B)
    model[0].batch_first = True
    model[0].state = h, c
    np.testing.assert_array_equal(model.eval()(X[:B]), y)


def test_every_epoch_begins_anew_and_validation_has_a_state_of_its_own():
    ours, theirs = make(), make()
    ours.predict(X, batch_size=B)  # a state that training must not see
    options = {"batch_size": B, "shuffle": False, "verbose": 0}
    history = ours.fit(X, Y, epochs=2, validation_data=(X, Y), **options)
    for _ in range(2):
        theirs.fit(X, Y, **options)
        state = [part.copy() for part in theirs[0].state]
        theirs.reset_states()
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    np.testing.assert_array_equal(ours[0].state, state)
    assert (
        history.last["val_loss"]
        == theirs.evaluate(X, Y, batch_size=B, return_dict=True)["loss"]
    )


@pytest.mark.parametrize("wrap", [fastrnn.Bidirectional, fastrnn.Sequential])
def test_a_layer_inside_another_goes_on(wrap):
    inner = fastrnn.GRU(F, 3, stateful=True, seed=0)
    model = fastrnn.Sequential(wrap(inner))
    first = model.predict(X[:B], batch_size=B)
    assert not np.array_equal(model.predict(X[:B], batch_size=B), first)
    model.reset_states()
    np.testing.assert_array_equal(model.predict(X[:B], batch_size=B), first)


def test_a_layer_over_the_steps_of_sequences_goes_on():
    letters = fastrnn.GRU(
        F, 3, batch_first=True, return_sequences=False, stateful=True, seed=0
    )
    model = fastrnn.Sequential(fastrnn.TimeDistributed(letters))
    x = X.reshape(2, 4, T, F)
    first = model.predict(x, batch_size=1)
    assert not np.array_equal(model.predict(x, batch_size=1), first)


def test_a_call_that_is_refused_leaves_the_state():
    model = make()
    model.predict(X, batch_size=B)
    before = [part.copy() for part in model[0].state]
    refused = {
        r"^predict: batch_size must leave no smaller batch for a stateful model, .* "
        r"batches of 2 and 3 of 8 samples with batch_size 3$": (X, 3),
        r"^predict: x must come in batches of 4, as the state of the call before has, "
        r"got 2; reset_states\(\) begins anew$": (X, 2),
        "input_size": (np.concatenate([X, X], axis=2), B),
    }
    for message, (x, batch_size) in refused.items():
        with pytest.raises(ValueError, match=message):
            model.predict(x, batch_size=batch_size)
        message = message.replace("predict", "evaluate")
        with pytest.raises(ValueError, match=message):
            model.evaluate(x, Y, batch_size=batch_size, return_dict=True)
        np.testing.assert_array_equal(model[0].state, before)


def test_an_error_in_a_later_batch_leaves_the_state():
    model = fastrnn.Sequential(
        fastrnn.Embedding(9, F, seed=0), fastrnn.GRU(F, 3, stateful=True, seed=1)
    )
    tokens = RNG.integers(9, size=(N, T))
    model.predict(tokens, batch_size=B)
    before = model[1].state.copy()
    tokens[-1, -1] = 9
    with pytest.raises(ValueError, match=r"^Embedding: indices must be in \[0, 9\)"):
        model.predict(tokens, batch_size=B)
    np.testing.assert_array_equal(model[1].state, before)


def test_summary_neither_needs_nor_changes_the_state(capsys):
    model = make()
    model.fit(X, Y, batch_size=B, shuffle=False, verbose=0)
    before = [part.copy() for part in model[0].state]
    model.summary()
    assert "LSTM" in capsys.readouterr().out
    np.testing.assert_array_equal(model[0].state, before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_calls_one_after_the_other_as_in_keras(tmp_path, keras, kind):
    layer = getattr(keras.layers, kind)(3, stateful=True)
    theirs = keras.Sequential(
        [keras.Input(batch_shape=(B, T, F)), layer, keras.layers.Dense(1)]
    )
    theirs.compile("sgd", "mse")
    theirs.save(tmp_path / "model.keras")
    ours = fastrnn.keras.load(tmp_path / "model.keras")
    ours.compile("mse", "sgd")
    options = {"batch_size": B}
    for again in (False, False, True, False):
        if again:
            layer.reset_states()
            ours.reset_states()
        expected = theirs.predict(X, verbose=0, **options)
        np.testing.assert_allclose(ours.predict(X, **options), expected, atol=1e-6)
        loss = theirs.evaluate(X, Y, verbose=0, **options)
        assert ours.evaluate(X, Y, **options, return_dict=True)[
            "loss"
        ] == pytest.approx(loss, rel=1e-5)
