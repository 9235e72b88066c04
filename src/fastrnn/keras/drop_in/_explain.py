# SPDX-License-Identifier: BSD-3-Clause
"""`explain`: whether fastrnn's kernels or Keras's own path runs a layer, and why."""

from typing import Any

import keras

from fastrnn.keras.drop_in import paths
from fastrnn.keras.drop_in._accelerate import name_of, recurrent
from fastrnn.keras.drop_in.layers import OURS, THEIRS
from fastrnn.keras.drop_in.paths import Path


class Paths(dict):
    """The `Path` of every recurrent layer in a model, by the path of the layer.

    Its ``str`` has a line for each layer.
    """

    def __str__(self) -> str:
        return "\n".join(f"{name}: {path}" for name, path in self.items())


def explain(model: keras.layers.Layer, *args: Any, **kwargs: Any) -> "Path | Paths":
    """Say for each recurrent layer of a model what would run it, and why.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
    *args, **kwargs
        With what to call the model: its input, and if they matter `training`, `mask`
        and `initial_state`. Without any, the answer is about what can be known of the
        layers alone; a call may then still give a reason to go Keras's way.

    Returns
    -------
    Path
        For a recurrent layer. Its ``str`` is one line.
    dict of str to Path
        For a model: the path of every recurrent layer inside, by Keras's path of the
        layer. Its ``str`` has a line for each.

    Raises
    ------
    TypeError
        If `model` is no layer of Keras 3, or has no recurrent layer.

    Notes
    -----
    With arguments, the model is called once, so that the inputs of its layers are
    known, and keeps its state: states of stateful layers, seeds and statistics.

    The answer is for an eager call. A call that is compiled may go another way: under
    ``torch.compile``, in a graph that XLA compiles for TensorFlow, and in
    ``model.export``, Keras's own path runs.

    Examples
    --------
    >>> import keras, numpy as np
    >>> layer = fastrnn.keras.GRU(5, recurrent_dropout=0.5)
    >>> print(fastrnn.keras.explain(layer, np.zeros((2, 7, 3), "float32")))
    fastrnn: float32 on torch
    >>> x = np.zeros((2, 7, 3), "float32")
    >>> print(fastrnn.keras.explain(layer, x, training=True))
    Keras: recurrent_dropout=0.5 acts in training
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            "fastrnn.keras.explain: model must be a layer or a model of Keras 3, got "
            f"{type(model).__name__}"
        )
    layers = recurrent(model)
    if not layers:
        raise TypeError(
            "fastrnn.keras.explain: model must be or hold a recurrent layer, got a "
            f"{type(model).__name__} without any"
        )
    seen = {id(layer): [] for layer in layers}
    if args or kwargs:
        if not model.built:
            model(*args, **kwargs)
        with paths.watching() as calls:
            _call(model, args, kwargs)
        for layer, path in calls:
            if id(layer) in seen and path not in seen[id(layer)]:
                seen[id(layer)].append(path)
    found = Paths(
        (name_of(layer), _of_layer(layer, seen[id(layer)], bool(args or kwargs)))
        for layer in layers
    )
    return found[name_of(model)] if layers == [model] else found


def _call(model, args, kwargs):
    """Call a model that keeps its state: nothing is written to its variables."""
    variables = model.trainable_variables + model.non_trainable_variables
    with keras.StatelessScope([(one, one.value) for one in variables]):
        model(*args, **kwargs)


def _of_layer(layer, seen, called):
    """One `Path` for a layer from those that its calls took."""
    if problem := paths.class_problem(layer, OURS):
        return Path("Keras", problem)
    if not isinstance(layer, tuple(THEIRS)):
        name = type(layer).__name__
        return Path("Keras", f"it is Keras's own {name}: accelerate replaces it")
    if not called:
        return paths.of_problem(layer, paths.layer_problem(layer))
    if not seen:
        return Path("Keras", "it was not called")
    if len(seen) == 1:
        return seen[0]
    name = "Keras" if any(path.name == "Keras" for path in seen) else "fastrnn"
    return Path(name, "; and ".join(map(str, seen)))
