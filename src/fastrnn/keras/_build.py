# SPDX-License-Identifier: BSD-3-Clause
"""`load`: a model of fastrnn's layers from a Keras file."""

from __future__ import annotations

import os

import numpy as np

from fastrnn.keras._graph import Tensor
from fastrnn.keras._layers import Builder
from fastrnn.keras._read import read
from fastrnn.nn.merging import Merging
from fastrnn.recurrent.layer import Recurrent
from fastrnn.train.functional import Functional
from fastrnn.train.sequential import Sequential
from fastrnn.util import checks, extras, files
from fastrnn.util.typing import PathLike


def load(path: PathLike, *, inference: bool = False) -> Sequential | Functional:
    """Read a Keras model, weights and all.

    Parameters
    ----------
    path : path-like
        A ``.keras`` or ``.h5`` file of Keras 1, 2 or 3, of a Sequential or a functional
        model. Layers may be Embedding, Masking, SimpleRNN, LSTM, GRU, CuDNNLSTM,
        CuDNNGRU, Bidirectional, Dense, Conv1D, BatchNormalization, LayerNormalization,
        Dropout, SpatialDropout1D, Activation, ReLU, Softmax, Flatten, Reshape, Permute,
        RepeatVector, MaxPooling1D, AveragePooling1D, GlobalMaxPooling1D,
        GlobalAveragePooling1D, Concatenate, Add, Subtract, Multiply, Average, Maximum,
        Minimum, TimeDistributed of any of these, and such models again.
    inference : bool
        True returns the model in eval mode, and ignores options and layers that act in
        training alone: ``dropout`` and ``recurrent_dropout`` of recurrent layers, and
        layers of noise. With False those two are the layers' ``input_dropout`` and
        ``recurrent_dropout``, for each gate by itself.

    Returns
    -------
    Sequential or Functional
        A `Functional` where layers do not simply follow one another. Recurrent layers
        are ``batch_first``, as Keras's are. An activation of a Dense or Conv1D, other
        than linear, is a layer of its own after it. The model is float64 if some
        weights in the file are, else float32. Masks go through the model as they do in
        Keras: see `Masking`.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged, or has a layer or an option that fastrnn does not
        compute; the message names the layer, the option and its value.
    ImportError
        If h5py is not installed.

    Notes
    -----
    Optimiser, loss, metrics, initialisers, regularisers and constraints are not read.
    Features of HDF5 that Keras does not use (arrays in other files, links, filters,
    types that are not floating-point) are refused: `fastrnn.load_model` says what a
    file may do. Keras 3 has another "hard_sigmoid" than Keras 2: the layers get that of
    the Keras that wrote the file.

    Where Keras has one bias, fastrnn has two, of which the second is zero at first.
    Training changes both, so the sum of both takes steps of twice the size.

    Examples
    --------
    >>> model = fastrnn.keras.load("model.keras")  # doctest: +SKIP
    >>> y = model(x)  # (B, T, features), as in Keras  # doctest: +SKIP
    """
    who = "fastrnn.keras.load"
    inference = checks.flag(who, "inference", inference)
    h5py = extras.require(who, "h5py", "keras")
    who = f"{who}: {os.fspath(path)}"
    data = files.read_bytes(path)
    with files.reading(who, "a .keras or .h5 file"):
        version, net = read(who, h5py, data)
        doubles = any(array.dtype == np.float64 for array in _arrays(net))
        dtype = "float64" if doubles else "float32"
        build = Builder(who, version, dtype, inference, model_of)
        model = model_of(build, net)
    return model.eval() if inference else model


def _arrays(net):
    """All weights in a model and in the models that are its layers."""
    for layer in net.layers.values():
        yield from layer.arrays
        if layer.net is not None:
            yield from _arrays(layer.net)


def model_of(build, net):
    """The model of a `Net`, each layer of which `build` makes of one of Keras's."""
    chain = net.chain
    if chain is not None and not any(map(_gives_states, chain)):
        return Sequential(*(part for layer in chain for part in build(layer)))
    parts = {name: build(layer) for name, layer in net.layers.items()}
    # Under which name what a tensor is goes: some layers pass on what they are given.
    names, calls = {tensor: str(tensor) for tensor in net.inputs}, []
    for call in net.calls:
        sources = tuple(_named(build, call, names, source) for source in call.sources)
        layer = net.layers[call.layer]
        tensor = Tensor(call.layer, call.number)
        for k, part in enumerate(parts[call.layer]):
            last = k + 1 == len(parts[call.layer])
            name = str(tensor) if last else f"{tensor}:{k}"
            given = _states(build, layer, part, tensor) if last else ()
            calls.append((part, sources, (name, *map(str, given))))
            names.update((one, str(one)) for one in given)
            sources = (name,)
        _check_sources(build, layer, parts[call.layer], sources, call)
        names[tensor] = sources[0]
        if isinstance(layer.net, tuple) and layer.kind != "TimeDistributed":
            given = [Tensor(*tensor[:2], k) for k in range(len(layer.net.outputs))]
            calls[-1] = (*calls[-1][:2], tuple(map(str, given)))
            names.update((one, str(one)) for one in given)
    outputs = [_named(build, None, names, tensor) for tensor in net.outputs]
    return Functional([str(tensor) for tensor in net.inputs], calls, outputs)


def _gives_states(layer):
    inner = layer.config.get("layer")
    inner = inner.get("config", {}) if isinstance(inner, dict) else {}
    return any(one.get("return_state", False) for one in (layer.config, inner))


def _named(build, call, names, tensor):
    """The name of what a layer or the model is given."""
    if tensor not in names:
        taker = "the model's output" if call is None else f"layer {call.layer!r}"
        raise ValueError(
            f"{build.who}: {taker} must be what a layer gives, got output "
            f"{tensor.place} of {tensor.layer!r}"
        )
    return names[tensor]


def _states(build, layer, part, tensor):
    """The tensors that are a recurrent layer's final states."""
    if not _gives_states(layer):
        return ()
    if not isinstance(part, Recurrent):
        raise ValueError(
            f"{build.who}: {layer}: return_state must be False, which fastrnn computes "
            "for recurrent layers whose directions stay side by side"
        )
    n = part._states * (2 if part.bidirectional else 1)
    return [Tensor(*tensor[:2], k) for k in range(1, n + 1)]


def _check_sources(build, layer, parts, sources, call):
    """Refuse several arrays where a layer takes one."""
    takes_several = parts and isinstance(
        parts[0], Merging | Recurrent | Sequential | Functional
    )
    if len(call.sources) > 1 and not takes_several:
        raise ValueError(
            f"{build.who}: {layer} must be given one array, got {len(call.sources)}"
        )
