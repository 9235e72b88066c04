# SPDX-License-Identifier: BSD-3-Clause
"""Setting an attribute does something or is an error; it is never ignored."""

import copy
import functools
import inspect
import pickle
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn import Activation, Masking, metrics, objectives
from fastrnn.recurrent import table
from fastrnn.text.model import CharModel
from fastrnn.text.vocabulary import CharVocabulary

X = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f")

MADE = {
    **{
        kind: functools.partial(getattr(fastrnn, kind), 3, 4, 2, seed=0)
        for kind in table.kinds()
    },
    "Linear": lambda: fastrnn.Linear(3, 4, seed=0),
    "Embedding": lambda: fastrnn.Embedding(9, 4, 0, seed=0),
    "Dropout": lambda: fastrnn.Dropout(0.5, seed=0),
    "LayerNorm": lambda: fastrnn.LayerNorm(3),
    "Attention": lambda: fastrnn.Attention(3, seed=0),
    "CRF": lambda: fastrnn.CRF(3, seed=0),
    "Bidirectional": lambda: fastrnn.Bidirectional(fastrnn.GRU(3, 4, seed=0)),
    "TimeDistributed": lambda: fastrnn.TimeDistributed(fastrnn.Linear(3, 4, seed=0)),
    "Concatenate": fastrnn.Concatenate,
    "Add": fastrnn.Add,
    "BatchNormalization": lambda: fastrnn.BatchNormalization(num_features=3),
    "Conv1D": lambda: fastrnn.Conv1D(4, 3, in_channels=3, seed=0),
    "Flatten": fastrnn.Flatten,
    "Functional": lambda: fastrnn.Functional(
        "x", [(fastrnn.Linear(3, 4, seed=0), "x", "y")], "y"
    ),
    "GlobalAveragePooling1D": fastrnn.GlobalAveragePooling1D,
    "MaxPooling1D": fastrnn.MaxPooling1D,
    "Permute": lambda: fastrnn.Permute((2, 1)),
    "RepeatVector": lambda: fastrnn.RepeatVector(2),
    "Reshape": lambda: fastrnn.Reshape((2, 3)),
    "SpatialDropout1D": lambda: fastrnn.SpatialDropout1D(0.5, seed=0),
    "Sequential": lambda: fastrnn.Sequential(fastrnn.Linear(3, 4, seed=0)),
    "EncoderDecoder": lambda: fastrnn.EncoderDecoder(
        fastrnn.GRU(3, 4, seed=0), fastrnn.GRU(3, 4, seed=1), 9, 9, start=0, end=1,
        attention=None, seed=2,
    ),
    "Generator": lambda: fastrnn.Generator(9, fastrnn.GRU(3, 4, seed=0), seed=1),
    "CharModel": lambda: CharModel(CharVocabulary.of("abc"), seed=0),
    "unbuilt": lambda: fastrnn.LSTM(None, 4, 2, seed=0),
    "Activation": lambda: Activation("tanh"),
    "Masking": Masking,
}  # fmt: skip
OPTIMIZERS = {
    name: lambda name=name: getattr(fastrnn, name)(fastrnn.Linear(3, 4, seed=0))
    for name in ("SGD", "RMSprop", "Adagrad", "Adam", "AdamW")
}
LOSSES = objectives.LOSSES
EVERYTHING = MADE | OPTIMIZERS | LOSSES


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_not_known_cannot_be_set(name):
    thing = EVERYTHING[name]()
    before = dict(vars(thing))
    for wrong in (
        "trainabel",
        "requires_grad",
        "name_of_it",
        "seed",
        "learn_rate",
        "device",
    ):
        with pytest.raises(AttributeError, match=f"{wrong}"):
            setattr(thing, wrong, 1)
    assert vars(thing) == before


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n != "unbuilt"])
def test_what_it_was_made_with_changes_or_is_refused(name):
    """Of every argument of a constructor; those that may change are tried below."""
    thing = EVERYTHING[name]()
    for argument, parameter in inspect.signature(type(thing)).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        other = object()
        before = getattr(thing, argument, None)
        with pytest.raises((AttributeError, TypeError, ValueError)):
            setattr(thing, argument, other)
        assert getattr(thing, argument, None) is before, argument


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("LSTM", "hidden_size", 7),
        ("LSTM", "input_size", 7),
        ("LSTM", "num_layers", 3),
        ("LSTM", "bias", False),
        ("LSTM", "bidirectional", True),
        ("LSTM", "proj_size", 2),
        ("LSTM", "forget_bias", 1.0),
        ("LSTM", "merge_mode", "sum"),
        ("LSTM", "activation", "relu"),
        ("LSTM", "clip_state_grad", 1.0),
        ("LSTM", "learn_initial_state", True),
        ("GRU", "reset_after", False),
        ("RNN", "nonlinearity", "relu"),
        ("RNN", "forget_bias", 1.0),
        ("Linear", "bias", False),
        ("Linear", "out_features", 5),
        ("Embedding", "padding_idx", 1),
        ("Embedding", "sparse", True),
        ("LayerNorm", "elementwise_affine", False),
        ("Attention", "units", 4),
        ("Attention", "kind", "dot"),
        ("Bidirectional", "merge_mode", "sum"),
        ("EncoderDecoder", "start", 4),
        ("EncoderDecoder", "dropout", 0.5),
        ("EncoderDecoder", "attention", "dot"),
        ("EncoderDecoder", "batch_first", True),
        ("EncoderDecoder", "head", None),
        ("Generator", "end", 3),
        ("CharModel", "hidden_size", 3),
        ("Adagrad", "initial_accumulator_value", 0.5),
        ("unbuilt", "hidden_size", 7),
        ("unbuilt", "state", None),
    ],
)
def test_what_would_mean_nothing_is_refused(name, attribute, value):
    thing = EVERYTHING[name]()
    before = dict(vars(thing))
    with pytest.raises((AttributeError, TypeError), match=attribute):
        setattr(thing, attribute, value)
    assert vars(thing) == before


def test_messages_say_what_helps():
    layer = fastrnn.LSTM(3, 4, seed=0)
    for wrong, message in {
        "trainabel": "LSTM has no attribute 'trainabel' that could be set; did you "
        "mean trainable",
        "requires_grad": "did you mean trainable?",
        "weight": "did you mean parameters['weight']?",
        "hidden_size": "LSTM: hidden_size is what the object was made with, 4, and "
        "cannot be set to 7; make a new one",
    }.items():
        with pytest.raises(AttributeError) as raised:
            setattr(layer, wrong, 7)
        assert message in str(raised.value)
    with pytest.raises(AttributeError, match=r"Adam has no .*did you mean lr\?$"):
        fastrnn.Adam(layer).l_r = 1.0


# -- what may change takes effect ----------------------------------------------------


def outputs(layer):
    y = layer(X)
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize(
    ("make", "attribute", "value"),
    [
        (lambda **o: fastrnn.LSTM(3, 4, seed=0, **o), "batch_first", True),
        (lambda **o: fastrnn.GRU(3, 4, seed=0, **o), "return_sequences", False),
        (lambda **o: fastrnn.GRU(3, 4, seed=0, **o), "go_backwards", True),
        (lambda **o: fastrnn.GRU(3, 4, 2, seed=0, **o), "dropout", 0.5),
        (lambda **o: fastrnn.GRU(3, 4, seed=0, **o), "checkpoint_every", 2),
        (lambda **o: fastrnn.Dropout(seed=0, **o), "p", 0.25),
        (lambda **o: fastrnn.LayerNorm(3, **o), "eps", 0.5),
        (lambda **o: Masking(**o), "mask_value", float(X[0, 0, 0])),
        (lambda **o: fastrnn.LSTM(None, 4, 2, seed=0, **o), "return_sequences", False),
        (lambda **o: fastrnn.LSTM(None, 4, 2, seed=0, **o), "batch_first", True),
    ],
)
def test_what_may_change_is_as_if_made_so(make, attribute, value):
    changed, made = make(), make(**{attribute: value})
    setattr(changed, attribute, value)
    np.testing.assert_array_equal(outputs(changed), outputs(made))
    assert getattr(changed, attribute) == value


def test_a_stateful_layer_may_become_one():
    layer = fastrnn.GRU(3, 4, seed=0)
    first, _ = layer(X)
    layer.stateful = True
    layer(X)
    assert not np.array_equal(layer(X)[0], first)


@pytest.mark.parametrize(
    ("thing", "attribute", "value", "error"),
    [
        (lambda: fastrnn.Dropout(), "p", 1.5, ValueError),
        (lambda: fastrnn.Dropout(), "p", "half", TypeError),
        (lambda: fastrnn.Dropout(), "generator", "mine", TypeError),
        (lambda: fastrnn.LSTM(3, 4), "batch_first", 1, TypeError),
        (lambda: fastrnn.LSTM(3, 4), "checkpoint_every", 0, ValueError),
        (
            lambda: fastrnn.LSTM(3, 4, bidirectional=True),
            "go_backwards",
            True,
            ValueError,
        ),
        (lambda: fastrnn.LSTM(3, 4), "training", "no", TypeError),
        (lambda: fastrnn.LayerNorm(3), "eps", 0.0, ValueError),
        (lambda: fastrnn.Sequential(), "loss", "mse", TypeError),
        (lambda: fastrnn.Sequential(), "optimizer", "adam", TypeError),
        (lambda: objectives.Huber(), "delta", -1.0, ValueError),
        (lambda: fastrnn.LSTM(None, 4), "dropout", 2.0, ValueError),
    ],
)
def test_what_may_change_is_checked(thing, attribute, value, error):
    made = thing()
    before = getattr(made, attribute, None)
    with pytest.raises(error, match=attribute):
        setattr(made, attribute, value)
    assert getattr(made, attribute, None) is before


def test_a_dropout_that_acts_nowhere_is_said_when_it_is_set():
    layer = fastrnn.GRU(3, 4)
    with pytest.warns(UserWarning, match="dropout acts between layers") as caught:
        layer.dropout = 0.5
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="dropout acts between layers") as caught:
        fastrnn.GRU(3, 4, dropout=0.5)
    assert caught[0].filename == __file__


# -- what is a user's own ------------------------------------------------------------


class Own(fastrnn.LSTM):
    """A user's layer has attributes of its own, but is made of what it is made of."""

    def __init__(self, size):
        self.before = 1
        super().__init__(3, size, seed=0)
        self.after = 2

    def forward(self, x, hx=None, **options):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x, hx, **options)


def test_a_class_of_ones_own_is_free():
    layer = Own(4)
    layer(X)
    layer.note = "mine"
    assert (layer.before, layer.after, layer.calls, layer.note) == (1, 2, 1, "mine")
    with pytest.raises(AttributeError, match="hidden_size is what the object was made"):
        layer.hidden_size = 7

    class Model(fastrnn.Model):
        def __init__(self):
            self.width = 3
            self.head = fastrnn.Linear(3, 1, seed=0)

        def forward(self, x):
            self.seen = x.shape
            return self.head(x)

        def backward(self, dy):
            return self.head.backward(dy)

    class Metric(metrics.Metric):
        name = "own"

        def values(self, pred, target):
            self.anything = 1
            return np.zeros(len(pred))

    model = Model()
    model.compile("mse", "adam", metrics=[Metric()])
    model.width = 5
    model.fit(X[:, 0], X[:, 0, :1], verbose=0)
    assert model.seen == (5, 3)


def test_layers_can_be_put_in_and_taken_out():
    model = fastrnn.Sequential(fastrnn.Linear(3, 4, seed=0), fastrnn.Linear(4, 1))
    setattr(model, "1", fastrnn.Linear(4, 2, seed=1))
    assert model(X).shape == (5, 2, 2)
    model.last = fastrnn.Linear(2, 5, seed=2)
    assert model(X).shape == (5, 2, 5)
    bundle = fastrnn.nn.module.Module()
    bundle.one, bundle.two = model, fastrnn.Linear(1, 1)
    assert len(bundle.parameters) == 8
    for thing in (fastrnn.CRF(3), MADE["EncoderDecoder"]()):
        with pytest.raises(AttributeError, match="has no attribute 'extra'"):
            thing.extra = fastrnn.Linear(1, 1)


def test_copies_know_the_same():
    layer = fastrnn.GRU(3, 4, seed=0)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(AttributeError, match="hidden_size"):
            again.hidden_size = 9
        again.batch_first = True
        assert outputs(again).shape == (5, 2, 4)


def test_a_fit_with_the_optimizer_of_another_model_is_refused():
    model, other = fastrnn.Linear(3, 1), fastrnn.Sequential(fastrnn.Linear(3, 1))
    other.compile("mse")
    other.optimizer = fastrnn.Adam(model)
    with pytest.raises(ValueError, match=r"^fit: the optimizer must be one made for "):
        other.fit(X[:, 0], X[:, 0, :1], verbose=0)


def test_setting_raises_no_warning_where_it_is_right():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastrnn.LSTM(3, 4, 2, dropout=0.5).dropout = 0.25
