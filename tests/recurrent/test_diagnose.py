# SPDX-License-Identifier: BSD-3-Clause
"""diagnose.py: what it finds, that it leaves no trace, what it refuses."""

import sys

import numpy as np
import pytest

import fastrnn


def last_step(y):
    dy = np.zeros_like(y)
    dy[-1] = 1
    return float(y[-1].sum()), dy


def rnn(scale, nonlinearity="tanh", **more):
    layer = fastrnn.RNN(2, 8, nonlinearity=nonlinearity, seed=0, **more)
    fastrnn.init.identity_(layer.parameters["weight_hh_l0"], scale)
    return layer


X = 0.01 * np.ones((40, 3, 2), "f")


def test_vanishing_and_its_remedies():
    found = fastrnn.diagnose(rnn(0.5), X, last_step)
    assert found.flows[0].ratio < 1e-9
    assert found.flows[0].norms.shape == (40,)
    assert "vanishes" in str(found)
    assert "identity" in str(found)
    assert "LSTM" in str(found)


def test_exploding_and_its_remedies():
    found = fastrnn.diagnose(rnn(1.5, "relu"), X, last_step)
    assert found.flows[0].ratio > 1e5
    assert "explodes" in str(found)
    assert "clip_state_grad" in str(found)


def test_a_gradient_that_flows_needs_nothing():
    layer = rnn(1.0, "relu")
    layer.parameters["bias_ih_l0"][...] = 0
    layer.parameters["bias_hh_l0"][...] = 0
    layer.parameters["weight_ih_l0"][...] = 0.1
    found = fastrnn.diagnose(layer, X, last_step)
    assert found.flows[0].ratio == pytest.approx(1)
    assert found.flows[0].dead == 0
    assert found.remedies == []


def test_dead_units():
    layer = rnn(1.0, "relu")
    layer.parameters["bias_ih_l0"][...] = [-9, -9, -9, -9, 1, 1, 1, 1]
    found = fastrnn.diagnose(layer, X, last_step)
    assert found.flows[0].dead == 0.5
    assert "50% of the units are dead" in str(found)


def test_saturated_gates():
    lstm = fastrnn.LSTM(2, 4, proj_size=2, seed=0)
    lstm.parameters["bias_ih_l0"][4:8] = 9
    shares = fastrnn.diagnose(lstm, X, last_step).flows[0].saturated
    assert shares["f"] == 1
    assert shares["i"] == shares["o"] == shares["g (tanh)"] == 0
    gru = fastrnn.GRU(2, 4, 2, bidirectional=True, seed=0)
    gru.parameters["bias_ih_l1_reverse"][8:] = -9
    flows = fastrnn.diagnose(gru, X, last_step).flows
    assert [flow.name for flow in flows] == [
        "layer 0", "layer 0 reverse", "layer 1", "layer 1 reverse",
    ]  # fmt: skip
    assert flows[3].saturated["n (tanh)"] == 1
    assert flows[2].saturated["n (tanh)"] == 0


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_model_is_left_as_it_was(batch_first):
    model = fastrnn.Sequential(
        fastrnn.GRU(2, 4, batch_first=batch_first, seed=0),
        fastrnn.Linear(4, 1, seed=0),
    ).eval()
    model.flat_grads[...] = 3
    found = fastrnn.diagnose(model, X, lambda y: fastrnn.mse_loss(y, np.ones_like(y)))
    assert found.flows[0].name == "model[0]"
    assert (model.flat_grads == 3).all()
    assert not model.training
    assert "backward" not in vars(model._children["0"])


def test_refusals(monkeypatch):
    with pytest.raises(TypeError, match="diagnose: model must be a Module, got int"):
        fastrnn.diagnose(3, X, last_step)
    with pytest.raises(TypeError, match="diagnose: loss must be callable, got int"):
        fastrnn.diagnose(rnn(1), X, 3)
    with pytest.raises(ValueError, match="must have a recurrent layer, got Linear"):
        fastrnn.diagnose(fastrnn.Linear(2, 3), X, last_step)
    with pytest.raises(TypeError, match=r"loss must return \(loss, gradient\)"):
        fastrnn.diagnose(rnn(1), X, lambda y: 0.0)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="needs the package matplotlib"):
        fastrnn.diagnose(rnn(1), X, last_step).plot()


def test_plot_with_matplotlib_has_the_norms_by_lag(tmp_path):
    reason = "draws with Matplotlib"
    pytest.importorskip("matplotlib", reason=reason).use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason=reason)
    gru = fastrnn.GRU(2, 4, 2, bidirectional=True, seed=0)

    def last_and_first(y):
        dy = np.zeros_like(y)
        dy[[0, -1]] = 1
        return float(y[[0, -1]].sum()), dy

    found = fastrnn.diagnose(gru, X, last_and_first)
    axes = found.plot()
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "time lag, steps"
    assert axes.get_ylabel() == "norm of dL/dh"
    assert len(axes.lines) == len(found.flows) == 4
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    names = ["layer 0", "layer 0 reverse", "layer 1", "layer 1 reverse"]
    assert legend == [f"{name} (GRU)" for name in names]
    y, _ = gru(X)
    *_, norms = gru.backward(last_and_first(y)[1], record_flow=True)
    for cell, (line, flow) in enumerate(zip(axes.lines, found.flows, strict=True)):
        lag, drawn = line.get_data()
        np.testing.assert_array_equal(lag, np.arange(40))
        np.testing.assert_array_equal(drawn, flow.norms)
        # Lag 0 is the step that a direction computes last.
        by_lag = norms[cell] if cell % 2 else norms[cell][::-1]
        np.testing.assert_array_equal(flow.norms, by_lag)
        assert len(set(drawn)) > 20
    one_end = fastrnn.diagnose(gru, X, last_step)
    drawn = one_end.plot().lines[3].get_ydata()  # zero has no place on such an axis
    assert (one_end.flows[3].norms[:-1] == 0).all()
    np.testing.assert_array_equal(np.isnan(drawn), one_end.flows[3].norms == 0)
    axes.figure.savefig(tmp_path / "flow.png")
    assert pyplot.imread(tmp_path / "flow.png").shape[2] == 4
    mine = pyplot.subplots()[1]
    assert found.plot(mine) is mine
    pyplot.close("all")


class Axes:
    """Notes what is drawn: no package is needed."""

    def __init__(self):
        self.lines, self.names, self.x_limits, self.texts = [], [], None, []

    def semilogy(self, *values, label, color=None):
        self.lines.append(values)
        self.names.append(label)

    def set_xlim(self, *limits):
        self.x_limits = limits

    def set_xlabel(self, text):
        self.texts.append(text)

    set_ylabel = set_xlabel

    def legend(self, loc, title):
        self.texts.append(loc)


def test_plot_draws_one_line_of_each_flow():
    axes = Axes()
    found = fastrnn.diagnose(rnn(0.5), X, last_step)
    assert found.plot(axes) is axes
    assert axes.names == ["layer 0 (RNN)"]
    assert axes.texts == ["time lag, steps", "norm of dL/dh", "best"]
    assert (axes.lines[0][0] > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_too_small_for_its_dtype_is_said_to_be(dtype):
    """From where 0.03 a step has made it less than what the dtype can square."""
    layer = rnn(0.03, dtype=dtype)
    steps = {"float32": 60, "float64": 400}[dtype]
    x = 1e-3 * np.ones((steps, 3, 2), dtype)
    found = fastrnn.diagnose(layer, x, last_step)
    (flow,) = found.flows
    least = {"float32": 1e-38, "float64": 1e-154}[dtype]
    assert flow.underflow == pytest.approx(np.log(least) / np.log(0.03), abs=2)
    assert (flow.norms[flow.underflow :] == 0).all()
    said = f"from lag {flow.underflow} of {steps - 1} on, where {dtype} underflows"
    assert said in str(found)
    axes = Axes()
    found.plot(axes)
    assert axes.names == ["layer 0 (RNN)", f"below {least:.0e}: {dtype} underflows"]
    last = flow.underflow - 1
    assert axes.lines[1][:2] == ((last,), (flow.norms[last],))
    assert axes.x_limits[1] >= steps - 1  # the axis does not stop where the line does


def test_zeros_of_another_cause_are_no_underflow():
    layer = rnn(1.0, "relu")
    layer.parameters["bias_ih_l0"][...] = -9  # all units are dead
    assert fastrnn.diagnose(layer, X, last_step).flows[0].underflow is None
    both = fastrnn.GRU(2, 4, bidirectional=True, seed=0)
    forward, reverse = fastrnn.diagnose(both, X, last_step).flows
    assert forward.underflow is None
    assert reverse.underflow is None


def test_names_say_where_a_layer_is():
    """As one writes it; a number of a layer only where there are several."""
    model = fastrnn.Sequential(
        fastrnn.LSTM(2, 4, 2, seed=0),
        fastrnn.Bidirectional(fastrnn.GRU(4, 4, seed=0)),
    )
    found = fastrnn.diagnose(model, X, lambda y: (y.sum(), np.ones_like(y)))
    names = [flow.name for flow in found.flows]
    assert names[:2] == ["model[0] layer 0", "model[0] layer 1"]
    assert len(set(names)) == len(names) == 4
    for name in names:
        assert isinstance(eval(name.split()[0], {"model": model}), fastrnn.Module)
