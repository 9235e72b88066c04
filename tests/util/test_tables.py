# SPDX-License-Identifier: BSD-3-Clause
"""Masked arrays and pandas objects: what is missing is an error, never a number."""

import re

import numpy as np
import pytest

import fastrnn
from fastrnn import data, losses, objectives
from fastrnn.data import sequences

ONES = np.ones((6, 4, 3))
MASKED = np.ma.masked_array(ONES, mask=np.arange(72).reshape(6, 4, 3) > 60)


def compiled(loss="mse"):
    model = fastrnn.Sequential(
        fastrnn.GRU(3, 4, return_sequences=False, seed=0), fastrnn.Linear(4, 1, seed=1)
    )
    model.compile(loss)
    return model


def masked(*shape, dtype=float):
    array = np.ma.ones(shape, dtype)
    array[(0,) * array.ndim] = np.ma.masked
    return array


WAYS_IN = {
    "layer": lambda: fastrnn.LSTM(3, 4, seed=0)(MASKED),
    "state": lambda: fastrnn.GRU(3, 4, seed=0)(ONES, masked(1, 4, 4)),
    "linear": lambda: fastrnn.Linear(3, 4, seed=0)(MASKED),
    "embedding": lambda: fastrnn.Embedding(3, 4, seed=0)(masked(3, dtype=int)),
    "time distributed": lambda: fastrnn.TimeDistributed(fastrnn.Linear(3, 2))(MASKED),
    "attention mask": lambda: fastrnn.Attention(3)(
        ONES, ONES, mask=masked(6, 4, dtype=bool)
    ),
    "backward": lambda: (lambda m: (m(ONES), m.backward(MASKED)))(fastrnn.Dropout(0.1)),
    "fit": lambda: compiled().fit(MASKED, np.ones(6)),
    "fit y": lambda: compiled().fit(ONES, masked(6)),
    "fit list": lambda: compiled().fit(list(MASKED), np.ones(6)),
    "fit ragged": lambda: compiled().fit([*MASKED, np.ones((3, 3))], np.ones(7)),
    "fit weight": lambda: compiled().fit(ONES, np.ones(6), sample_weight=masked(6)),
    "predict": lambda: compiled().predict(MASKED),
    "evaluate": lambda: compiled().evaluate(MASKED, np.ones(6), return_dict=True),
    "nested lists": lambda: compiled().predict([[[1.0, 1.0, np.ma.masked]]]),
    "loss": lambda: objectives.MeanSquaredError()(np.ones((6, 1)), masked(6)),
    "mse_loss": lambda: losses.mse_loss(masked(3), np.ones(3)),
    "mask of a loss": lambda: losses.mse_loss(
        np.ones(3), np.ones(3), mask=masked(3, dtype=bool)
    ),
    "windows": lambda: data.windows(masked(20), 4),
    "target": lambda: data.windows(np.ones(20), 4, target=masked(20)),
    "split_by_time": lambda: data.split_by_time(masked(20)),
    "one_hot": lambda: data.one_hot(masked(3, dtype=int)),
    "pad_sequences": lambda: sequences.pad_sequences([masked(3), np.ones(2)]),
    "pack": lambda: sequences.pack([masked(3), np.ones(2)]),
    "parameters": lambda: fastrnn.Linear(2, 1, bias=False).load_state_dict(
        {"weight": masked(1, 2)}
    ),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_a_masked_array_is_refused(way):
    with pytest.raises(ValueError, match=r"must not have masked elements, got \d+ of "):
        WAYS_IN[way]()


def test_a_mask_that_hides_nothing_is_passed_over():
    model = compiled()
    whole = np.ma.masked_array(ONES, mask=False)
    np.testing.assert_array_equal(model.predict(whole), model.predict(ONES))


# -- pandas --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pd():
    return pytest.importorskip("pandas", reason="pandas is not installed")


def columns(pd):
    """Columns by type, with the numbers that they hold."""
    return {
        "Int64": pd.array([1, 2, 3, 4, 5], dtype="Int64"),
        "Float64": pd.array([1.0, 2.0, 3.0, 4.0, 5.0], dtype="Float64"),
        "boolean": pd.array([True, False, True, True, False], dtype="boolean"),
        "bool": np.array([True, False, True, True, False]),
        "float32": np.arange(5, dtype="f"),
        "uint8": np.arange(5, dtype="u1"),
        "objects": np.array([1, 2.5, True, 4, 5], object),
    }


def test_columns_of_numbers_and_flags_are_numbers(pd):
    table = pd.DataFrame(columns(pd))
    expected = np.array([[float(v) for v in row] for row in table.to_numpy(object)])
    x, y = data.windows(table, 2)
    np.testing.assert_array_equal(x[0], expected[:2])
    np.testing.assert_array_equal(y, expected[2:])
    train, test = data.split_by_time(table, test_size=2)
    np.testing.assert_array_equal(np.concatenate([train, test]), expected)
    for name in table:
        x, _ = data.windows(table[name], 2)
        np.testing.assert_array_equal(x[0], expected[:2, table.columns == name])
        assert x.dtype.kind in "fiub"
    model = fastrnn.Sequential(fastrnn.Linear(7, 1, seed=0))
    np.testing.assert_array_equal(model.predict(table), model.predict(expected))
    model.compile("mse")
    model.fit(table, table["boolean"], verbose=0, seed=0)
    y, _ = fastrnn.LSTM(7, 2, seed=0)(table)
    np.testing.assert_array_equal(y, fastrnn.LSTM(7, 2, seed=0)(expected)[0])


def test_columns_of_one_type_keep_it(pd):
    table = pd.DataFrame({"a": pd.array([1, 2], dtype="Int16"), "b": [True, False]})
    assert data.split_by_time(table, test_size=1)[0].dtype == np.int16
    assert data.split_by_time(table["b"], test_size=1)[0].dtype == bool
    dates = pd.Series(pd.date_range("2020-01-01", periods=4))
    assert data.split_by_time(dates, test_size=1)[1].dtype.kind == "M"


BAD = {
    "Int64": (lambda pd: pd.array([1, None, 3], dtype="Int64"), "no missing values"),
    "Float64": (lambda pd: pd.array([1, None], dtype="Float64"), "no missing values"),
    "boolean": (lambda pd: pd.array([True, None], dtype="boolean"), "no missing"),
    "str": (lambda pd: ["a", "b", "c"], "real numbers, got 'a' as value 0"),
    "digits": (lambda pd: ["1", "2", "3"], "real numbers, got '1' as value 0"),
    "category": (lambda pd: pd.Categorical(["a", "b", "a"]), "real numbers, got 'a'"),
    "None": (lambda pd: np.array([1, None, 3], object), "no missing values, got None"),
    "date": (lambda pd: pd.date_range("2020", periods=3), "real numbers, got dtype d"),
    "complex": (lambda pd: np.ones(3, complex), "real numbers, got dtype complex128"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_column_that_holds_no_numbers_is_named(pd, kind):
    make, message = BAD[kind]
    odd = make(pd)
    table = pd.DataFrame({"fine": np.ones(len(odd)), "odd one": odd})
    model = fastrnn.Sequential(fastrnn.Linear(2, 1, seed=0))
    for who, call in {
        "windows": lambda: data.windows(table, 1),
        "split_by_time": lambda: data.split_by_time(table),
        "predict": lambda: model.predict(table),
        "Linear": lambda: fastrnn.Linear(2, 1)(table),
    }.items():
        with pytest.raises(
            (TypeError, ValueError),
            match=f"^{who}: column 'odd one' of .* must (be|have) {re.escape(message)}",
        ):
            call()


@pytest.mark.parametrize("kind", ["Int64", "str", "None", "category"])
def test_a_series_that_holds_no_numbers_is_named(pd, kind):
    make, message = BAD[kind]
    column = pd.Series(make(pd), name="price")
    for call in (lambda: data.windows(column, 1), lambda: data.split_by_time(column)):
        with pytest.raises(
            (TypeError, ValueError), match=f"column 'price' of .*{re.escape(message)}"
        ):
            call()


def test_objects_are_not_handed_on():
    assert data.split_by_time(np.array([1, 2.5, True], object))[0].dtype == float
    flags = np.array([True, False], object)
    assert data.split_by_time(flags, test_size=1)[0].dtype == bool
    with pytest.raises(TypeError, match=r"^split_by_time: series\[0\] must be real n"):
        data.split_by_time(np.array([1, "a"], object))
    with pytest.raises(ValueError, match=r"^split_by_time: series\[0\] must have no "):
        data.split_by_time([1, None, 2])
    with pytest.raises(ValueError, match=r"^windows: series must fit in int64, got 10"):
        data.windows(np.array([10**30, 1, 2], object), 1)


def test_a_column_of_sequences_still_goes_in(pd):
    rows = [[1, 2], [3], [4, 5, 6]]
    model = fastrnn.Generator(9, fastrnn.GRU(4, 4, seed=0), start=0, end=8, seed=1)
    model.compile()
    assert model.evaluate(None, pd.Series(rows), return_dict=True) == model.evaluate(
        None, rows, return_dict=True
    )


@pytest.mark.parametrize("name", ["RNNClassifier", "RNNRegressor", "RNNForecaster"])
def test_estimators_refuse_masked_arrays(name):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from fastrnn import sklearn as estimators

    estimator = getattr(estimators, name)(epochs=1, hidden_size=2)
    X, y = np.ones((6, 3)), np.arange(6) % 2
    for call in (
        lambda: estimator.fit(masked(6, 3), y),
        lambda: estimator.fit(X, masked(6, dtype=int)),
        lambda: estimator.fit(X, y).predict(masked(6, 3)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: [Xy] must not have masked"):
            call()
