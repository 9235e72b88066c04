# SPDX-License-Identifier: BSD-3-Clause
"""Whatever the table of cells lists works everywhere; what has no form is refused."""

import warnings

import numpy as np
import pytest
import reference
from cells import CELLS, KINDS

import fastrnn
from fastrnn.native import celltable
from fastrnn.recurrent import arguments, table
from fastrnn.recurrent.layer import Recurrent

CLASSES = table.classes()
each = pytest.mark.parametrize("cls", CLASSES.values())


class Odd(fastrnn.GRU):
    """A user's own class, which no other library can have."""


# Classes that PyTorch, Keras and ONNX know nothing of.
ALONE = [Odd, *(CLASSES[k.lower()] for k in KINDS if k not in ("RNN", "LSTM", "GRU"))]
alone = pytest.mark.parametrize("cls", ALONE)


# -- the registry ----------------------------------------------------------------------


def test_classes_are_those_of_the_table():
    assert set(KINDS) == {celltable.cell(cell).layer for cell in CELLS}
    assert [getattr(fastrnn, cls.__name__) for cls in CLASSES.values()] == [
        *CLASSES.values()
    ]
    assert next(iter(CLASSES)) == "lstm"
    assert [*CLASSES][-1] in ("rnn", "leakyrnn", "indrnn")
    assert table.named().startswith("RNN, LSTM")


def test_a_class_has_the_name_of_its_cells():
    with pytest.raises(TypeError, match="Twisted: a class of recurrent layers must "):
        type("Twisted", (Recurrent,), {})
    assert "twisted" not in table.classes()


def test_a_users_class_is_made_of_its_bases_cells():
    mine = type("LSTM", (fastrnn.LSTM,), {})
    assert table.classes()["lstm"] is fastrnn.LSTM
    assert mine._cells == fastrnn.LSTM._cells


def test_nonlinearity_chooses_among_the_cells_of_a_class():
    for cell in table.cells_of("RNN"):
        layer = fastrnn.RNN(2, 3, nonlinearity=cell.activations[0])
        assert layer._cell == cell.name


@pytest.mark.parametrize("cell", CELLS)
def test_options_are_those_of_the_cell(cell):
    """What the cell does not know is refused, and named with the layers that do."""
    about, values = celltable.cell(cell), {"proj_size": 2, "reset_after": False}
    values |= {"activation": "elu", "recurrent_activation": "elu", "cell_clip": 1.0}
    values |= {"peephole": True, "input_forget": True}
    for name, value in values.items():
        if name in arguments.of_cell(about):
            assert arguments.cell_options("X", about, 4, **{name: value}) is not None
            continue
        rule = f"X: {name} is an option of .*, not of {about.layer}"
        with pytest.raises(ValueError, match=rule):
            arguments.cell_options("X", about, 4, **{name: value})


@each
def test_a_warning_names_the_users_line(cls):
    """Whether a class has a constructor or inherits it, and whoever sets the value."""
    inherited = type("Mine", (cls,), {})
    layer = cls(2, 3)
    for make in (
        lambda: cls(2, 3, dropout=0.5),
        lambda: cls(None, 3, dropout=0.5),
        lambda: inherited(2, 3, dropout=0.5),
        lambda: setattr(layer, "dropout", 0.5),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make()
        assert [warning.filename for warning in caught] == [__file__]


# -- all there is to do with a layer ---------------------------------------------------


@each
def test_training_summary_and_files(cls, tmp_path, capsys, rng):
    model = fastrnn.Sequential(
        fastrnn.Bidirectional(cls(None, 6, seed=0), "sum"),
        cls(None, 5, return_sequences=False, learn_initial_state=True, seed=1),
        fastrnn.Linear(None, 1, seed=2),
    )
    x = rng.standard_normal((24, 7, 3)).astype("f")
    y = x.mean(axis=(1, 2))[:, None]
    model.compile("mse", "adam", lr=0.02)
    history = model.fit(x, y, epochs=5, seed=0, verbose=0).history["loss"]
    assert history[-1] < history[0]
    print(model.summary())
    assert f"1 {cls.__name__} " in capsys.readouterr().out
    model.save(tmp_path / "model")
    again = fastrnn.load_model(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@each
def test_writing_and_translating(cls):
    def layer(seed, **options):
        return cls(4, 8, seed=seed, **options)

    model = fastrnn.Generator(6, layer(0), start=4, end=5, seed=1)
    model.compile(optimizer="adam", lr=0.05)
    losses = model.fit(None, [range(4)], epochs=30, seed=0, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert len(model.predict(None)) == 1

    model = fastrnn.EncoderDecoder(
        layer(0, bidirectional=True), layer(1), 6, 6, start=4, end=5, seed=2
    )
    model.compile(optimizer="adam", lr=0.05)
    pairs = [[0, 1, 2], [3, 1]], [[2, 1], [0]]
    losses = model.fit(*pairs, epochs=10, seed=0, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@each
def test_diagnosis(cls, rng):
    """Every gate is looked at, and has the share of saturated values that it has."""
    layer = cls(2, 5, dtype="float64", seed=0)
    if "relu" not in layer._cells[0].activations:  # it would grow from step to step
        layer.flat_parameters[:] *= 4
    x = rng.standard_normal((30, 4, 2))
    found = fastrnn.diagnose(layer, x, lambda y: (y.sum(), np.ones_like(y)))
    (flow,) = found.flows
    assert flow.kind == cls.__name__
    assert f"({cls.__name__})" in str(found)

    if layer._runtime.options is not None:  # not a plain cell
        assert flow.saturated == {}
        return
    about, plain = reference.CELLS[layer._cell], reference.plain(layer._cell)
    w = reference.weights_of(layer._cell, layer.parameters, "_l0", 5)
    values = [[] for _ in about.functions]

    def act(k, a):
        values[k].append(plain(k, a))
        return values[k][-1]

    state = tuple(np.zeros((layer._states, 4, 5)))
    for x_t in x:
        state = about.step(act, x_t, state, w)
    want = {}
    for gate, function, seen in zip(about.gates, about.functions, values, strict=False):
        # A report leaves the first step out, unless the gate is the state itself.
        seen = np.array(seen if gate == "h" else seen[1:])
        if celltable.cell(layer._cell).skips:
            continue  # gates see c, which no layer puts out
        if function == "sigmoid":
            want[gate] = (np.abs(seen - 0.5) > 0.45).mean()
        elif function == "tanh":
            want[f"{gate} ({function})"] = (np.abs(seen) > 0.95).mean()
    assert flow.saturated == pytest.approx(want, abs=1e-12)


@each
def test_an_argument_that_nobody_knows(cls):
    """The error names the class, whose constructor may be the base's."""
    message = rf"^{cls.__name__}\(\) has no argument 'twist'; it takes input_size, "
    with pytest.raises(TypeError, match=message):
        cls(2, 3, twist=1)


# -- what has no form elsewhere --------------------------------------------------------


@alone
def test_onnx_refuses(cls, tmp_path):
    pytest.importorskip("onnx")
    for layer, rule in (
        (cls(2, 3), "must be one of RNN, LSTM, GRU"),
        (fastrnn.Bidirectional(cls(2, 3)), "must run one of RNN, LSTM, GRU"),
    ):
        model = fastrnn.Sequential(layer)
        with pytest.raises(ValueError, match=f"layer '0' {rule}.*, got {cls.__name__}"):
            fastrnn.onnx.save(model, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


@alone
def test_keras_refuses(cls):
    with pytest.raises(
        TypeError, match=f"must be a Keras layer .*, got {cls.__name__}"
    ):
        fastrnn.keras.layer_weights(cls(2, 3))


@each
def test_the_drop_in_has_a_module_for_every_class(cls):
    torch = pytest.importorskip("torch")
    module = getattr(fastrnn.torch, cls.__name__)
    assert issubclass(module, torch.nn.Module)


@alone
def test_the_drop_in_replaces_modules_only(cls):
    pytest.importorskip("torch")
    name = cls.__name__
    with pytest.raises(TypeError, match=f"model must be a .*, got {name}"):
        fastrnn.torch.accelerate(cls(2, 3))


def test_the_drop_in_knows_no_class_of_a_user():
    pytest.importorskip("torch")
    with pytest.raises(AttributeError, match="Odd"):
        fastrnn.torch.Odd  # noqa: B018


@pytest.mark.parametrize("mode", ["MGU", "lstm", "GRU_TANH"])
def test_the_drop_in_has_pytorchs_cells_only(mode):
    pytest.importorskip("torch")
    from fastrnn.torch._spec import spec

    with pytest.raises(ValueError, match=f"RNN_RELU, LSTM, GRU; got '{mode}'"):
        spec(mode, 2, 3, 1, True, False)
