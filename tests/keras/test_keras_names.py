# SPDX-License-Identifier: BSD-3-Clause
"""Every name of Keras's that a tutorial uses works, or is answered for."""

import importlib
import pkgutil

import pytest

import fastrnn
from fastrnn.keras._absent import Absent
from fastrnn.util.keras_names import NAMES
from fastrnn.util.keras_words import KEYWORDS

MODULES = ("layers", "optimizers", "losses", "metrics", "callbacks", "utils", "models")


@pytest.mark.parametrize("module", ["", *MODULES, "preprocessing"])
def test_every_name_of_keras(module, keras):
    theirs = getattr(keras, module) if module else keras
    ours = getattr(fastrnn.keras, module) if module else fastrnn.keras
    names = [name for name in dir(theirs) if name[0] != "_"]
    assert len(names) > 4
    for name in names:
        assert getattr(ours, name) is not None, name


# What a tutorial cannot do without.
WORK = {
    "layers": "Activation Bidirectional Concatenate Dense Dropout Embedding GRU Input "
    "InputLayer LSTM LayerNormalization Masking ReLU SimpleRNN Softmax TimeDistributed",
    "optimizers": "SGD RMSprop Adam AdamW Adagrad",
    "losses": "BinaryCrossentropy CategoricalCrossentropy Huber MeanAbsoluteError "
    "MeanSquaredError SparseCategoricalCrossentropy",
    "metrics": "AUC BinaryAccuracy CategoricalAccuracy MeanAbsoluteError Precision "
    "MeanSquaredError Recall RootMeanSquaredError SparseCategoricalAccuracy",
    "callbacks": "CSVLogger Callback EarlyStopping History LambdaCallback "
    "LearningRateScheduler ModelCheckpoint ReduceLROnPlateau",
    "models": "Model Sequential load_model",
    "utils": "pad_sequences to_categorical",
    "preprocessing.sequence": "pad_sequences",
    "preprocessing.text": "Tokenizer",
}


@pytest.mark.parametrize("module", WORK)
def test_what_works(module):
    ours = importlib.import_module(f"fastrnn.keras.{module}")
    for name in WORK[module].split():
        assert not isinstance(getattr(ours, name), Absent), name
        assert name in ours.__all__


def test_the_answers():
    answered = [(module, name) for module, names in NAMES.items() for name in names]
    assert len(answered) > 300
    for module, name in answered:
        path = f"fastrnn.keras.{module}".rstrip(".")
        found = getattr(importlib.import_module(path), name)
        if not isinstance(found, Absent):
            continue  # a layer that has come since
        where = f"{path.removeprefix('fastrnn.')}.{name}"
        assert repr(found) == f"<{where} is not in fastrnn; {NAMES[module][name]}>"
        for use in (lambda: found(3), lambda: type("Mine", (found,), {})):  # noqa: B023
            with pytest.raises((NotImplementedError, TypeError)):
                use()
        with pytest.raises(AttributeError, match=name):
            found.load_data  # noqa: B018


def test_an_import_that_keras_answers_for():
    conv = fastrnn.keras.layers.Conv2D
    with pytest.raises(
        NotImplementedError, match=r"^keras.layers.Conv2D is not in fas"
    ):
        conv(32, 3)
    with pytest.raises(
        NotImplementedError, match=r"^keras.layers.Layer is not in .*der"
    ):

        class Mine(fastrnn.keras.layers.Layer):
            pass

    with pytest.raises(AttributeError, match=r"no attribute 'LTSM'; did you mean LSTM"):
        fastrnn.keras.layers.LTSM  # noqa: B018
    with pytest.raises(
        AttributeError, match=r"'TimeseriesGenerator'; .* fastrnn.window"
    ):
        fastrnn.TimeseriesGenerator  # noqa: B018
    assert isinstance(fastrnn.keras.layers.Attention, Absent)  # ours is another
    with pytest.raises(
        TypeError, match=r"^Model\(\) takes no inputs and outputs; a cha"
    ):
        fastrnn.Model(inputs=1, outputs=2)


def test_the_table_is_about_what_there_is():
    """Owners of words are classes and functions, and their words' names arguments."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
        if module.name.split(".")[1]
        in ("nn", "recurrent", "train", "losses", "data", "text")
    ]
    known = {name for module in modules for name in vars(module)}
    known |= {name for name in dir(fastrnn.Model) if name[0] != "_"}
    assert KEYWORDS.keys() <= known
    for words in KEYWORDS.values():
        for name, word in words.items():
            assert (word.here is None) != (word.answer == ""), name


def test_normalisation_has_kerass_defaults():
    layer = fastrnn.keras.layers.LayerNormalization()
    assert repr(layer) == "LayerNorm(None, eps=0.001)"
    make = fastrnn.keras.layers.LayerNormalization
    with pytest.raises(
        TypeError, match=r"LayerNorm\(\) .* 'axis'; normalized_shape say"
    ):
        make(axis=1)
    with pytest.raises(ValueError, match="center must be False with scale=False"):
        make(scale=False)
