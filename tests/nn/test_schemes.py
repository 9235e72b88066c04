# SPDX-License-Identifier: BSD-3-Clause
"""The argument `init`: which first values parameters get, and from whom."""

import functools
import math

import numpy as np
import pytest

import fastrnn
from fastrnn import init
from fastrnn.native import celltable
from fastrnn.recurrent import table

LAYERS = table.classes()
H, I = 24, 7


def first_values(cls, **arguments):
    """A recurrent layer of everything that has parameters, as its cell knows it."""
    more = {"proj_size": 8, "peephole": True} if cls is fastrnn.LSTM else {}
    return cls(I, H, 3, bidirectional=True, connection="highway",
               learn_initial_state=True, seed=3, **more, **arguments)  # fmt: skip


def assert_uniform(array, bound):
    assert abs(array).max() <= bound
    assert abs(array).max() > 0.8 * bound
    assert abs(array.mean()) < 5 * bound / math.sqrt(3 * array.size)
    assert array.std() == pytest.approx(bound / math.sqrt(3), rel=0.3)


@pytest.mark.parametrize("name", LAYERS)
def test_keras_fills_as_keras_does(name):
    """Formulas of Glorot & Bengio 2010 and Saxe et al. 2014, on Keras's matrices."""
    layer = first_values(LAYERS[name], init="keras")
    gates = celltable.cell(layer._cell).gates
    for key, array in layer.parameters.items():
        if key.startswith(("weight_ih", "weight_hr", "weight_gate")):
            assert_uniform(array, math.sqrt(6 / sum(array.shape)))
        elif name == "indrnn" and key.startswith("weight_hh"):
            assert ((array >= 0) & (array <= 1)).all()
            assert array.std() == pytest.approx(1 / math.sqrt(12), rel=0.3)
        elif key.startswith("weight_hh"):
            np.testing.assert_allclose(
                array.T @ array, np.eye(array.shape[1]), atol=1e-5
            )
        elif key.startswith(("weight_ph", "weight_c")):
            assert_uniform(array, math.sqrt(3 / H))
        elif key.startswith("bias_gate"):
            assert (array == -1).all()
        else:
            expected = np.zeros_like(array)
            if key.startswith("bias_ih") and name in ("lstm", "slstm"):
                f = gates.index("f")
                expected[f * H : (f + 1) * H] = 1
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_torch_fills_as_torch_does(name):
    layer = first_values(LAYERS[name], init="torch")
    for key, array in layer.parameters.items():
        if key.startswith("weight_gate"):
            assert_uniform(array, 1 / math.sqrt(array.shape[1]))
        elif key.startswith("bias_gate"):
            assert (array == -1).all()
        elif key.endswith("_0"):
            assert not array.any()
        else:
            assert_uniform(array, 1 / math.sqrt(H))


def test_defaults():
    np.testing.assert_array_equal(
        fastrnn.Embedding(5, 3, seed=0).flat_parameters,
        fastrnn.Embedding(5, 3, init="torch", seed=0).flat_parameters,
    )
    for make in (
        functools.partial(fastrnn.LSTM, 3, 4),
        functools.partial(fastrnn.Linear, 3, 4),
        functools.partial(fastrnn.LSTM, None, 4),
    ):
        default, keras, torch = (
            make(seed=0, **given)
            for given in ({}, {"init": "keras"}, {"init": "torch"})
        )
        for layer in (default, keras, torch):
            layer(np.ones((2, 1, 3), "f"))
        a, b, c = (layer.flat_parameters for layer in (default, keras, torch))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_torch_scheme_keeps_its_numbers():
    np.testing.assert_array_equal(
        fastrnn.Linear(4, 1, init="torch", seed=0).parameters["weight"][0],
        np.float32([0.13696168732, -0.23021328624, -0.45902647606, -0.48347237712]),
    )


def test_linear_and_embedding():
    linear = fastrnn.Linear(60, 40, init="keras", seed=0).parameters
    assert_uniform(linear["weight"], math.sqrt(6 / 100))
    assert not linear["bias"].any()
    small = fastrnn.Embedding(50, 20, 3, init="keras", seed=0).parameters["weight"]
    assert_uniform(np.delete(small, 3, 0), 0.05)
    assert not small[3].any()
    standard = fastrnn.Embedding(50, 20, init="torch", seed=0).parameters["weight"]
    assert standard.std() == pytest.approx(1, rel=0.1)


def test_convolution():
    """Glorot's fans of a kernel are those of all steps in its window, as in Keras."""
    for given in ({}, {"init": "keras"}):
        layer = fastrnn.Conv1D(40, 5, in_channels=60, seed=0, **given)
        assert_uniform(layer.parameters["weight"], math.sqrt(6 / (5 * (60 + 40))))
        assert not layer.parameters["bias"].any()
    layer = fastrnn.Conv1D(40, 5, init="torch", seed=0)
    layer(np.ones((7, 1, 60)))
    for array in layer.parameters.values():
        assert_uniform(array, 1 / math.sqrt(5 * 60))


def test_an_initialiser_is_for_all_weights():
    layer = fastrnn.GRU(H, H, init=init.orthogonal_, seed=0)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        for gate in np.split(layer.parameters[name], 3):  # it was told n_gates
            np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-5)
    assert not layer.parameters["bias_ih_l0"].any()


def test_a_mapping_is_for_what_it_names():
    def threes(array):
        array[...] = 3

    given = {"weight_hh": init.identity_, "bias_hh": 0.5, "weight_ih_l1": threes,
             "bias_ih": "torch"}  # fmt: skip
    p = fastrnn.RNN(H, H, 2, init=given, seed=0).parameters
    default = fastrnn.RNN(H, H, 2, seed=0).parameters
    for k in (0, 1):
        np.testing.assert_array_equal(p[f"weight_hh_l{k}"], np.eye(H))
        assert (p[f"bias_hh_l{k}"] == 0.5).all()
        assert_uniform(p[f"bias_ih_l{k}"], 1 / math.sqrt(H))
    assert (p["weight_ih_l1"] == 3).all()
    np.testing.assert_array_equal(p["weight_ih_l0"], default["weight_ih_l0"])


def test_forget_bias_and_coupled_gates():
    p = fastrnn.LSTM(I, H, forget_bias=2.0, seed=0).parameters
    assert (p["bias_ih_l0"][H : 2 * H] == 2).all()
    p = fastrnn.LSTM(I, H, input_forget=True, seed=0).parameters
    assert not p["bias_ih_l0"].any()


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("he", ValueError, "LSTM: init must be one of 'keras', 'torch', got 'he'"),
        (3, TypeError, "LSTM: init must be 'keras' or 'torch', an initialiser or"),
        (None, TypeError, "got None"),
        ({"kernel": 1}, ValueError, "init must be for weight_ih, .*'kernel'"),
        ({"bias_ih": "he"}, ValueError, r"init\['bias_ih'\] must be one of"),
        ({"bias_ih": [0]}, TypeError, r"init\['bias_ih'\] must be 'keras' or"),
        ({"bias_ih": math.nan}, ValueError, r"init\['bias_ih'\] must be a number"),
        ({"bias_ih": True}, TypeError, "got True"),
        ({"bias_ih": init.orthogonal_}, ValueError, "orthogonal_: array must have"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("input_size", [3, None])
def test_refused(given, error, match, input_size):
    if input_size is None and given == {"bias_ih": init.orthogonal_}:
        pytest.skip("an initialiser is called when there is something to fill")
    with pytest.raises(error, match=match):
        fastrnn.LSTM(input_size, 4, init=given)


def test_a_saved_model_has_the_values_and_not_their_origin(tmp_path):
    model = fastrnn.Sequential(
        fastrnn.GRU(None, 4, init=init.orthogonal_, seed=0),
        fastrnn.Linear(4, 2, init={"bias": 1}, seed=0),
    )
    x = np.ones((2, 3, 5), "f")
    expected = model.predict(x)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(
        fastrnn.load_model(tmp_path / "model").predict(x), expected
    )


def test_nothing_is_drawn_where_a_file_has_the_values(tmp_path, monkeypatch):
    model = fastrnn.Sequential(fastrnn.LSTM(3, 4, seed=0))
    model.predict(np.ones((1, 2, 3), "f"))
    model.save(tmp_path / "model")
    drawn = []
    monkeypatch.setattr(init, "orthogonal_", lambda *a, **k: drawn.append(a))
    monkeypatch.setattr("fastrnn.nn.init.orthogonal_", init.orthogonal_)
    fastrnn.load_model(tmp_path / "model")
    repr(fastrnn.LSTM(None, 4))
    assert not drawn
    fastrnn.LSTM(3, 4)
    assert drawn


class TestSetSeed:
    @pytest.fixture(autouse=True)
    def undo(self):
        yield
        fastrnn.set_seed(None)

    @staticmethod
    def run():
        """Weights, dropout, shuffling and sampling, none of them given a seed."""
        model = fastrnn.Sequential(
            fastrnn.LSTM(1, 4), fastrnn.Dropout(0.5), fastrnn.Linear(4, 1)
        )
        model.compile("mse", "adam")
        x = np.linspace(0, 1, 60, dtype="f").reshape(12, 5, 1)
        model.fit(x, x, epochs=2, batch_size=4, verbose=0)
        drawn = fastrnn.sample(np.zeros((5, 10), "f"))
        return np.append(model.flat_parameters, drawn)

    def test_repeats(self):
        fastrnn.set_seed(7)
        first, second = self.run(), self.run()
        fastrnn.set_seed(7)
        np.testing.assert_array_equal(self.run(), first)
        assert (first != second).any()
        fastrnn.set_seed(8)
        assert (self.run() != first).any()

    def test_none_is_unforeseeable_again(self):
        fastrnn.set_seed(7)
        first = self.run()
        fastrnn.set_seed(None)
        assert (self.run() != first).any()

    def test_a_seed_of_its_own_comes_first(self):
        expected = fastrnn.Linear(3, 3, seed=1).flat_parameters
        fastrnn.set_seed(7)
        np.testing.assert_array_equal(
            fastrnn.Linear(3, 3, seed=1).flat_parameters, expected
        )

    @pytest.mark.parametrize(
        ("seed", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)]
    )
    def test_refused(self, seed, error):
        with pytest.raises(error, match="set_seed: seed must be None or an integer"):
            fastrnn.set_seed(seed)
