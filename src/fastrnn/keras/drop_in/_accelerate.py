# SPDX-License-Identifier: BSD-3-Clause
"""`accelerate`, `restore`: put the recurrent layers of a Keras model on the kernels."""

import weakref
from typing import TypeVar

import keras

from fastrnn.keras.drop_in import paths
from fastrnn.keras.drop_in.layers import OURS, THEIRS

LayerT = TypeVar("LayerT", bound=keras.layers.Layer)
# Models whose jit_compile was turned off, because the kernels do not run inside XLA.
_jit_was_on = weakref.WeakSet()


def accelerate(model: LayerT, verbose: bool = True) -> LayerT:
    """Let every `LSTM`, `GRU` and `SimpleRNN` in a Keras model run on the kernels.

    Each layer stays the object that it is, with its weights, its name and its place in
    the model: an optimiser that was made before goes on working. Only the class of the
    layer changes. Layers inside of others, as in a `Bidirectional`, change as well.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Changed in place; may be a recurrent layer itself.
    verbose : bool
        Whether to print which layers were replaced, which were left and why, and which
        Keras goes on running although they were replaced.

    Returns
    -------
    keras.Model or keras.layers.Layer
        `model`.

    Raises
    ------
    TypeError
        If `model` is not a layer or model of Keras 3.

    Notes
    -----
    A layer of the class RNN, as ``RNN(LSTMCell(8))``, and a layer whose class the user
    derived from one of Keras's, are left as they are.

    Functions that Keras compiled for `fit`, `evaluate` and `predict` are made again at
    their next call. What the user compiled, as with ``tf.function`` or ``jax.jit``, and
    has called before keeps Keras's own path.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.layers.GRU(5, name="gru")])
    >>> model = fastrnn.keras.accelerate(model)
    fastrnn.keras: replaced gru: GRU
    >>> model = fastrnn.keras.restore(model)
    """
    _check("accelerate", model)
    lines = []
    for layer in recurrent(model):
        what = f"{name_of(layer)}: {type(layer).__name__}"
        reason = paths.class_problem(layer, OURS)
        if reason is None and type(layer) not in OURS:
            reason = "it is fastrnn's already"
        if reason is not None:
            lines.append(f"left {what}: {reason}")
            continue
        layer.__class__ = OURS[type(layer)]
        problem = paths.layer_problem(layer)
        but = f", but Keras runs it: {problem}" if problem else ""
        lines.append(f"replaced {what}{but}")
    if not lines:
        lines.append(f"{type(model).__name__} has no {paths.kinds()}")
    _forget_compiled(model)
    if verbose:
        for line in lines:
            print(f"fastrnn.keras: {line}")
    return model


def restore(model: LayerT) -> LayerT:
    """Undo `accelerate`: give every layer of fastrnn in a model Keras's class again.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Changed in place.

    Returns
    -------
    keras.Model or keras.layers.Layer
        `model`.

    Raises
    ------
    TypeError
        If `model` is not a layer or model of Keras 3.

    Examples
    --------
    >>> import keras
    >>> layer = fastrnn.keras.accelerate(keras.layers.GRU(5), verbose=False)
    >>> type(fastrnn.keras.restore(layer)) is keras.layers.GRU
    True
    """
    _check("restore", model)
    for layer in recurrent(model):
        if type(layer) in THEIRS:
            layer.__class__ = THEIRS[type(layer)]
    _forget_compiled(model)
    return model


def _check(who, model):
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"fastrnn.keras.{who}: model must be a layer or a model of Keras 3, got "
            f"{type(model).__name__}"
        )


def recurrent(model):
    """The recurrent layers of a model, with those inside of other layers, each once."""
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
    ]
    return list({id(layer): layer for layer in found}.values())


def name_of(layer):
    """Keras's path of a layer; its name, as long as it is not part of a built model."""
    return layer.path or layer.name


def _forget_compiled(model):
    """Let the models in a model compile their functions anew, and XLA off where it is.

    Keras decides at `compile` whether XLA compiles a model. A layer that does not
    support that says so, which Keras asks only then.
    """
    for one in model._flatten_layers():
        if not isinstance(one, keras.Model):
            continue
        one.train_function = one.test_function = one.predict_function = None
        supported = all(layer.supports_jit for layer in one._flatten_layers())
        if not one.compiled:
            continue
        if one.jit_compile and not supported:
            one.jit_compile = False
            _jit_was_on.add(one)
        elif supported and one in _jit_was_on:
            one.jit_compile = True
            _jit_was_on.discard(one)
