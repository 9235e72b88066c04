# SPDX-License-Identifier: BSD-3-Clause
"""Losses and metrics of models that end in logits, and in probabilities."""

import numpy as np
import pytest

import fastrnn
from fastrnn import metrics, objectives

ENDS = {
    "layer": lambda kind, n: (fastrnn.Linear(3, n, dtype="float64", seed=2), kind()),
    "argument": lambda kind, n: (
        fastrnn.Linear(3, n, activation=kind().function, dtype="float64", seed=2),
    ),
    "nested": lambda kind, n: (
        fastrnn.Sequential(fastrnn.Linear(3, n, dtype="float64", seed=2), kind()),
    ),
    "each step": lambda kind, n: (
        fastrnn.Linear(3, n, dtype="float64", seed=2),
        fastrnn.TimeDistributed(kind()),
    ),
}


def network(*end, dtype="float64"):
    return fastrnn.Sequential(
        fastrnn.GRU(2, 3, batch_first=True, dtype=dtype, seed=1), *end
    )


def sample(rng, classes, n=6, T=4):
    x = rng.standard_normal((n, T, 2))
    if classes == 1:
        return x, rng.integers(0, 2, (n, T, 1)).astype("d")
    return x, rng.integers(0, classes, (n, T))


LOSSES = {
    "binary_crossentropy": (fastrnn.Sigmoid, 1),
    "sparse_categorical_crossentropy": (fastrnn.Softmax, 5),
    "categorical_crossentropy": (fastrnn.Softmax, 5),
}


def by_hand(loss, p, y):
    """Cross-entropy of probabilities in float64, a mean over rows."""
    p = p.astype("d")
    if loss == "binary_crossentropy":
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    y = y if y.ndim == p.ndim else np.eye(p.shape[-1])[y]
    return -(y * np.log(p)).sum(-1).mean()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_model_of_probabilities_is_the_model_of_its_logits(loss, end, rng):
    """One sigmoid, not two: loss, metrics, gradients and training."""
    kind, classes = LOSSES[loss]
    x, y = sample(rng, classes)
    y = np.eye(classes)[y] if loss == "categorical_crossentropy" else y
    of_logits = network(fastrnn.Linear(3, classes, dtype="float64", seed=2))
    of_probabilities = network(*ENDS[end](kind, classes))
    names = ["accuracy", *([] if classes == 1 else ["perplexity", "top_2_accuracy"])]
    found = []
    for model in (of_logits, of_probabilities):
        model.compile(loss, "sgd", metrics=names, lr=0.3)
        before = model.evaluate(x, y, batch_size=4, return_dict=True)
        history = model.fit(x, y, epochs=2, batch_size=4, verbose=0, seed=0).history
        found.append((before, history, model.flat_parameters.copy()))
    (before, history, weights), (before_p, history_p, weights_p) = found
    assert before_p == pytest.approx(before, rel=1e-14)
    assert history_p == history
    np.testing.assert_array_equal(weights_p, weights)
    p = of_probabilities.predict(x)
    assert p.min() > 0
    assert p.max() < 1  # what `predict` gives is what the last layer gives
    assert of_probabilities.evaluate(x, y, return_dict=True)["loss"] == pytest.approx(
        by_hand(loss, p, y), rel=1e-12
    )


def test_saturated_outputs_have_a_finite_exact_loss():
    z = np.array([[-200.0], [40.0], [1000.0]], "f")
    y = np.array([[1.0], [0.0], [0.0]])
    linear = fastrnn.Linear(1, 1, seed=0)
    linear.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
    model = fastrnn.Sequential(linear, fastrnn.Sigmoid())
    assert set(model.predict(z).ravel()[1:]) == {1.0}
    model.compile("binary_crossentropy", "sgd", lr=1e-3)
    # -log sigmoid(-200) is 200, -log(1 - sigmoid(z)) is z up to exp(-z).
    assert model.evaluate(z, y, return_dict=True)["loss"] == pytest.approx(
        1240 / 3, rel=1e-6
    )
    model.fit(z, y, verbose=0, batch_size=3)
    dz = np.array([-1.0, 1.0, 1.0]) / 3
    want = 1 - 1e-3 * (dz * z.ravel()).sum(), -1e-3 * dz.sum()
    np.testing.assert_allclose(model.flat_parameters, want, rtol=1e-6)
    # Given as numbers, they are brought into [1e-7, 1 - 1e-7], and have no gradient.
    loss = objectives.BinaryCrossentropy(from_logits=False)
    value, d = loss(np.array([[0.0], [1.0]]), y[:2])
    assert value == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert not d.any()


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_probabilities(name, rng):
    classes = LOSSES[name][1]
    x, y = sample(rng, classes, n=3)
    p = rng.uniform(0.1, 0.9, (*x.shape[:2], classes))
    weight = rng.uniform(0.5, 2, (3, 4))
    y = np.eye(classes)[y] if name == "categorical_crossentropy" else y
    loss = objectives.LOSSES[name](from_logits=False)
    d = loss(p, y, weight)[1]
    for index in np.ndindex(p.shape):
        moved = np.zeros_like(p)
        moved[index] = 1e-6
        slope = (loss(p + moved, y, weight)[0] - loss(p - moved, y, weight)[0]) / 2e-6
        assert slope == pytest.approx(d[index], rel=1e-6, abs=1e-8)


def test_from_logits_may_be_said(rng):
    x, y = sample(rng, 1)
    p = np.clip(network(fastrnn.Linear(3, 1, seed=2, dtype="float64")).predict(x), 0, 1)
    for how in ({"from_logits": False}, {}):
        model = network(fastrnn.Linear(3, 1, dtype="float64", seed=2))
        loss = "binary_crossentropy" if how else objectives.BinaryCrossentropy(False)
        model.compile(loss, metrics=["accuracy"], **how)
        q = np.clip(p, 1e-7, 1 - 1e-7)
        found = model.evaluate(x, y, return_dict=True)
        assert found["loss"] == pytest.approx(by_hand(model.loss.name, q, y))
        assert found["accuracy"] == np.mean((p > 0.5) == (y > 0.5))
        assert model.loss.options() == {"from_logits": False}
    model = network(fastrnn.Linear(3, 1, dtype="float64", seed=2), fastrnn.Sigmoid())
    z = model.predict(x)  # taken for logits, as it was said
    model.compile("binary_crossentropy", from_logits=True)
    want = by_hand(model.loss.name, 1 / (1 + np.exp(-z)), y)
    assert model.evaluate(x, y, return_dict=True)["loss"] == pytest.approx(want)


def test_what_was_said_is_saved(tmp_path):
    model = network(fastrnn.Linear(3, 1, dtype="float64", seed=2))
    model.compile("binary_crossentropy", from_logits=False)
    model.save(tmp_path / "m")
    assert fastrnn.load_model(tmp_path / "m").loss.from_logits is False


def test_probabilities_that_go_through_more(rng):
    """Dropout after the sigmoid, another loss's function: numbers, clipped."""
    x, y = sample(rng, 5)
    model = network(
        fastrnn.Linear(3, 5, dtype="float64", seed=2), fastrnn.Softmax(),
        fastrnn.Dropout(0.5, seed=3),
    )  # fmt: skip
    model.compile("sparse_categorical_crossentropy")
    p = model.predict(x)
    want = by_hand(model.loss.name, p, y)
    assert model.evaluate(x, y, return_dict=True)["loss"] == pytest.approx(want)
    assert np.isfinite(model.fit(x, y, verbose=0, seed=0).history["loss"][0])
    several = np.eye(5)[y]  # each class's own yes or no, of a softmax
    model = network(*ENDS["layer"](fastrnn.Softmax, 5))
    model.compile("binary_crossentropy")
    want = by_hand(model.loss.name, model.predict(x), several)
    assert model.evaluate(x, several, return_dict=True)["loss"] == pytest.approx(want)
    model = network(*ENDS["layer"](fastrnn.Sigmoid, 5))
    model.compile("categorical_crossentropy")
    p = model.predict(x)
    want = by_hand(model.loss.name, p / p.sum(-1, keepdims=True), several)
    assert model.evaluate(x, several, return_dict=True)["loss"] == pytest.approx(want)


def test_cells_with_a_sigmoid_give_probabilities(rng):
    x, y = rng.standard_normal((6, 4, 2)), rng.integers(0, 2, (6, 1)).astype("d")
    for layer in (
        fastrnn.RNN(2, 1, activation="sigmoid", return_sequences=False, seed=0),
        fastrnn.Bidirectional(
            fastrnn.GRU(None, 1, activation="hard_sigmoid", return_sequences=False),
            "mul",
        ),
        fastrnn.LSTM(None, 1, activation=["tanh", "sigmoid"], return_sequences=False),
    ):
        model = fastrnn.Sequential(layer)
        model.compile("binary_crossentropy")
        got = model.evaluate(x, y, return_dict=True)["loss"]
        assert got == pytest.approx(by_hand("binary_crossentropy", model.predict(x), y))
        assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    "end",
    [
        (fastrnn.ReLU(),),
        (fastrnn.Linear(3, 1, activation="tanh"),),
        (fastrnn.Linear(None, 1, activation="softplus"), fastrnn.Dropout(0.1)),
        (fastrnn.TimeDistributed(fastrnn.Activation("elu")),),
        (fastrnn.Bidirectional(fastrnn.RNN(3, 1, activation="sigmoid"), "sum"),),
    ],
)
@pytest.mark.parametrize("loss", [*LOSSES, "ctc"])
def test_other_functions_are_refused_before_a_cross_entropy(end, loss):
    model = network(*end, dtype="float32")
    with pytest.raises(ValueError, match=f"{loss}: the model must end in logits or in"):
        model.compile(loss)
    assert model.loss is None
    model.compile(loss, from_logits=False)
    model.compile("mse")


class Own(fastrnn.Model):
    """A model of the user's class, whose output is made in several ways."""

    def __init__(self, way):
        self.inner = fastrnn.Linear(2, 1, dtype="float64", seed=0)
        self.gate = fastrnn.Sigmoid()
        self.way = way

    def forward(self, x):
        y = self.gate(self.inner(x)) if self.way != "inside" else self.inner(x)
        if self.way == "inside":
            return self.inner(self.gate(x))
        return y.copy() if self.way == "copied" else y

    def backward(self, dy):
        return self.inner.backward(self.gate.backward(dy))


def test_a_model_of_ones_own_is_watched(rng):
    x, y = rng.standard_normal((5, 2)), np.array([[0.0], [1], [1], [0], [1]])
    model = Own("plain")
    model.compile("binary_crossentropy", "sgd", metrics=["accuracy"], lr=0.5)
    p = model.predict(x)
    found = model.evaluate(x, y, return_dict=True)
    assert found["loss"] == pytest.approx(by_hand(model.loss.name, p, y))
    assert found["accuracy"] == np.mean((p > 0.5) == y)
    before = model.flat_parameters.copy()
    model.fit(x, y, verbose=0)
    want = 0.5 * np.concatenate([((p - y) * x).mean(0), (p - y).mean(0)])
    np.testing.assert_allclose(before - model.flat_parameters, want, rtol=1e-6)
    inside = Own("inside")
    inside.compile("binary_crossentropy")
    z = inside.predict(x)
    want = by_hand(model.loss.name, 1 / (1 + np.exp(-z)), y)
    assert inside.evaluate(x, y, return_dict=True)["loss"] == pytest.approx(want)
    copied = Own("copied")
    copied.compile("binary_crossentropy")
    before = copied.flat_parameters.copy()
    for call in (copied.evaluate, copied.fit):
        with pytest.raises(ValueError, match="from_logits must be given for a model w"):
            call(x, y)
    np.testing.assert_array_equal(copied.flat_parameters, before)
    copied.ends_in = lambda: copied.gate
    assert copied.evaluate(x, y, return_dict=True)["loss"] == pytest.approx(
        found["loss"]
    )


def test_the_loss_of_ctc_of_probabilities_is_that_of_their_logits(rng):
    x, y = rng.standard_normal((3, 6, 2)), [[1, 2], [2], [1, 1]]
    found = []
    for end in ((), (fastrnn.Softmax(),), (fastrnn.Softmax(), fastrnn.Dropout(0.0))):
        model = network(fastrnn.Linear(3, 3, dtype="float64", seed=2), *end)
        model.compile("ctc", "sgd", metrics=["label_error_rate"], lr=0.5)
        before = model.evaluate(x, y, return_dict=True)
        model.fit(x, y, verbose=0, seed=0)
        beam = [row.tolist() for row in model.predict(x, beam_width=3)]
        found.append((before, model.flat_parameters.copy(), beam))
    for before, weights, beam in found[1:]:
        assert before == pytest.approx(found[0][0], rel=1e-12)
        np.testing.assert_allclose(weights, found[0][1], rtol=1e-9)
        assert beam == found[0][2]
    model = network(fastrnn.Linear(3, 3, seed=2, dtype="float64"), fastrnn.Sigmoid())
    with pytest.raises(ValueError, match="ctc: the model must end in logits or in a s"):
        model.compile("ctc")


def test_a_crf_is_given_scores():
    model = network(
        fastrnn.Linear(3, 4, activation="softmax"), fastrnn.CRF(4), dtype="float32"
    )
    with pytest.raises(ValueError, match="crf: the CRF must be given scores, got the"):
        model.compile("crf")


def test_heads_that_write_give_scores():
    model = fastrnn.Generator(5, fastrnn.GRU(3, 3, seed=0), start=0, seed=1)
    model.head = fastrnn.Linear(3, 5, activation="softmax", seed=2)
    with pytest.raises(ValueError, match="generate: head must give logits, got"):
        model.generate(max_length=3)
    p = np.array([[0.2, 0.8, 0.0]] * 50)
    draws = fastrnn.sample(p, seed=0, from_logits=False)
    np.testing.assert_array_equal(draws, fastrnn.sample(np.log(p + 1e-300), seed=0))
    with pytest.raises(ValueError, match="sample: logits must be probabilities in"):
        fastrnn.sample([1.5, 0.0], from_logits=False)


def test_perplexity_beside_a_function_as_loss(rng):
    x, y = sample(rng, 3)
    model = network(*ENDS["layer"](fastrnn.Softmax, 3))
    model.compile(lambda p, t: (0.0, 0 * p), metrics=["perplexity"])
    p = np.take_along_axis(model.predict(x), y[..., None], -1)
    want = np.exp(-np.log(p).mean())
    assert model.evaluate(x, y, return_dict=True)["perplexity"] == pytest.approx(want)


def test_a_layer_that_waits_for_its_size_is_looked_at_in_silence():
    """A warning of the layer's own constructor does not come again."""
    with pytest.warns(UserWarning, match="dropout acts between layers"):
        layer = fastrnn.RNN(None, 1, activation="sigmoid", dropout=0.1)
    model = fastrnn.Sequential(layer)
    model.compile("binary_crossentropy")
    assert model.loss.probabilities


def test_metrics_by_themselves():
    loss = objectives.BinaryCrossentropy(from_logits=False)
    metric = metrics.Accuracy(loss)
    metric.update(np.array([[0.4], [0.6]]), np.array([[0.0], [1.0]]))
    assert metric.result() == 1.0
    metric = metrics.Perplexity(objectives.SparseCategoricalCrossentropy(False))
    metric.update(np.array([[0.25, 0.75]]), np.array([0]))
    assert metric.result() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("loss", "from_logits", "error", "message"),
    [
        ("mse", True, ValueError, "compile: from_logits is for binary_crossentropy, c"),
        (lambda p, t: (0.0, p), False, ValueError, "compile: from_logits is for bina"),
        (
            "ctc",
            "yes",
            TypeError,
            "ConnectionistTemporalClassification: from_logits must be True or False",
        ),
        (
            objectives.BinaryCrossentropy(),
            True,
            ValueError,
            "from_logits must be given",
        ),
    ],
)
def test_messages(loss, from_logits, error, message):
    model = fastrnn.Sequential(fastrnn.Linear(1, 1))
    with pytest.raises(error, match=message):
        model.compile(loss, from_logits=from_logits)
    assert model.loss is None
