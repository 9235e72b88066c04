# SPDX-License-Identifier: BSD-3-Clause
"""Whether the kernels can run a layer of Keras, or one call of it, and if not, why.

A call runs as Keras runs it unless everything about it is known to fit the kernels. Bad
input therefore goes to Keras, too, whose checks raise Keras's errors. The reasons here
are what `fastrnn.keras.explain` and `accelerate` print.
"""

import contextlib
import contextvars
import functools
import importlib
from typing import NamedTuple

import keras

from fastrnn.keras.drop_in import forms

DTYPES = ("float32", "float64")
BACKENDS = ("jax", "tensorflow", "torch")


class Path(NamedTuple):
    """What runs a layer, and the reason for it.

    Attributes
    ----------
    name : {"fastrnn", "Keras"}
        "fastrnn" for the kernels, "Keras" for Keras's own path.
    reason : str
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@functools.cache
def backend():
    """The module that runs layers on the backend of Keras; None if there is none.

    Keras has one backend for as long as a process lives.
    """
    name = keras.backend.backend()
    if name not in BACKENDS:
        return None
    return importlib.import_module(f"fastrnn.keras.drop_in.{name}")


def kinds():
    """The classes of Keras that can be replaced, for messages."""
    return "keras.layers.LSTM, GRU or SimpleRNN"


def class_problem(layer, ours):
    """Why a recurrent layer is not, and cannot become, one of our classes, or None.

    Parameters
    ----------
    layer : keras.layers.RNN
    ours : dict of type to type
        Our class for each class of Keras's.
    """
    cls = type(layer)
    if cls in ours or isinstance(layer, tuple(ours.values())):
        return None
    if cls is keras.layers.RNN:
        cell = type(layer.cell).__name__
        return f"it runs a cell, {cell}; what can be replaced is {kinds()}"
    return f"{cls.__name__} is a class of its own, not {kinds()}"


def layer_problem(layer):
    """Why the kernels can run no call of a layer at all, or None."""
    _, cell_class, _ = forms.kind(layer)
    cell = layer.cell
    if type(cell) is not cell_class:
        return f"its cell is a {type(cell).__name__}, not Keras's {cell_class.__name__}"
    for name, function in forms.functions(layer).items():
        if not forms.is_known(function):
            return f"the kernels have no {name} {_name(function)}"
    if layer.unroll:
        return "unroll=True asks for Keras's own loop"
    if getattr(layer, "use_cudnn", None) is True:
        return "use_cudnn=True asks for cuDNN"
    if cell.quantization_mode is not None or layer.quantization_mode is not None:
        return "it is quantised"
    for one in (layer, cell):
        if one.compute_dtype not in DTYPES:
            return f"it computes in {one.compute_dtype}"
        if one.compute_dtype != layer.variable_dtype:
            return f"it computes in {one.compute_dtype} with {layer.variable_dtype}"
    if backend() is None:
        return f"Keras runs on {keras.backend.backend()}"
    return None


def _name(function):
    return getattr(function, "__name__", type(function).__name__)


def call_problem(layer, x, states, mask, training):
    """Why the kernels cannot run a call of a layer that has been built, or None.

    Parameters
    ----------
    layer : keras.layers.LSTM, GRU or SimpleRNN
    x : tensor, shape (B, T, I)
        Of the backend of Keras; a size may be None where a graph is traced.
    states : list of tensor
        Initial states, of shape (B, H).
    mask : tensor, shape (B, T), or None
    training : bool or None
    """
    if problem := layer_problem(layer) or _dropout_problem(layer.cell, training):
        return problem
    cell = layer.cell
    shape = tuple(x.shape)
    B, T = shape[:2]
    if len(shape) != 3 or shape[-1] != cell.kernel.shape[0]:
        return f"Keras refuses an input of shape {shape}"
    if 0 in shape:
        return f"the input is empty: its shape is {shape}"
    if not any(kind in str(x.dtype) for kind in ("float", "int", "bool")):
        # A cast to real numbers would leave out the imaginary parts.
        return f"the input is {x.dtype}"
    if len(states) != len(layer.state_size):
        return f"there are {len(states)} initial states"
    for state in states:
        if not _fits(state, (B, cell.units)):
            return f"an initial state has shape {tuple(state.shape)}"
    if mask is not None and not _fits(mask, (B, T)):
        return f"the mask has shape {tuple(mask.shape)}, not {(B, T)}"
    return backend().problem(layer, x, states, mask)


def _dropout_problem(cell, training):
    """Why the kernels cannot run a call because of dropout, or None."""
    if training is not None and not isinstance(training, bool | int):
        return f"training is a {type(training).__name__}, not a bool"
    if not training:
        return None
    if cell.recurrent_dropout:
        return f"recurrent_dropout={cell.recurrent_dropout} acts in training"
    if cell.dropout >= 1:
        return f"dropout={cell.dropout}"
    if cell.dropout and getattr(cell, "implementation", 2) == 1:
        return "dropout draws a mask for each gate with implementation=1"
    return None


def _fits(tensor, shape):
    """Whether a tensor has a shape; sizes that a graph does not know yet fit any."""
    found = tuple(tensor.shape)
    return len(found) == len(shape) and all(
        None in (a, b) or a == b for a, b in zip(found, shape, strict=True)
    )


_watch = contextvars.ContextVar("fastrnn.keras paths of calls", default=None)


@contextlib.contextmanager
def watching():
    """Collect which path each call takes inside a ``with``.

    Yields
    ------
    list of (layer, Path)
        One for each call.
    """
    seen = []
    token = _watch.set(seen)
    try:
        yield seen
    finally:
        _watch.reset(token)


def note(layer, problem):
    """Tell who watches which path a call takes."""
    seen = _watch.get()
    if seen is not None:
        seen.append((layer, of_problem(layer, problem)))


def of_problem(layer, problem):
    """The `Path` of a layer that has this problem, or None."""
    if problem is None:
        return Path("fastrnn", f"{layer.compute_dtype} on {keras.backend.backend()}")
    return Path("Keras", problem)
