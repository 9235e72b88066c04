# SPDX-License-Identifier: BSD-3-Clause
"""Whole models in one file: parameters as safetensors, everything else as JSON.

The parameters have the names of `Module.save`.  What a checkpoint has in addition is in
`resuming`; `loading` makes a model of what is read here.
"""

import math
import os

from fastrnn.losses import naming, objectives
from fastrnn.nn.describe import describe
from fastrnn.nn.quantized import TYPES
from fastrnn.nn.trainable import frozen
from fastrnn.train.quantizing import small_parts
from fastrnn.util import container, files
from fastrnn.util.schema import (
    any_of,
    check,
    integer,
    list_of,
    matching,
    one_of,
    row_of,
)

KIND = container.Kind("fastrnn-model", 1, "a model", "saved by fastrnn")
RUN = "training"  # before the names of arrays that are not parameters

# Elements of the sample that `Model.summary` runs again, of which a file has the shape
# alone; a model that has seen a larger one is saved without.
MOST_SEEN = 2**26

# What the JSON object must have. Constructors have rules of their own, in addition.
_SEEN = row_of(
    list_of(integer(0), most=32),
    matching(r"bool|(int|uint)(8|16|32|64)|float(16|32|64)", "a type of numbers"),
)
_COMPILED = {
    "loss": one_of(*objectives.LOSSES),
    "loss_options": dict,
    "optimizer": any_of(None, str),
    "options": dict,
    "metrics": list_of(str),
}
_META = {
    "model": dict,
    "seen": list_of(_SEEN, most=32),
    "compiled": any_of(None, _COMPILED),
    "frozen": list_of(str),
    "quantized": list_of(row_of(str, one_of(*TYPES))),
    "run": any_of(None, dict),
}


# Endings of other libraries' files, which nobody could read this file as.
_OTHERS = (".keras", ".h5", ".hdf5", ".onnx")


def check_path(who, path):
    """Refuse a path whose ending says that the file is another library's."""
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending in _OTHERS:
        also = (
            "fastrnn.keras.load reads Keras's files"
            if ending in (".keras", ".h5", ".hdf5")
            else "fastrnn.onnx.save writes ONNX's files"
        )
        raise ValueError(
            f"{who}: path must not end in {ending!r}, for the file is a safetensors "
            f"file: 'model.safetensors', which fastrnn.load_model reads; {also}, got "
            f"{os.fspath(path)!r}"
        )


def save_model(model, path):
    """Write a model: what it is made of, its parameters, and how it was compiled.

    Parameters
    ----------
    model : Model
    path : path-like

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be described, or has no parameters yet.
    OSError
        If the file cannot be written.
    """
    container.write(path, model.state_dict(), KIND, describe_model(model))


def describe_model(model):
    seen = [[list(one.shape), one.dtype.name] for one in model._seen or ()]
    if sum(math.prod(shape) for shape, _ in seen) > MOST_SEEN:
        seen = []
    small = small_parts(model)
    return {
        "model": describe(model),
        "seen": seen,
        "compiled": compiled(model),
        "frozen": frozen(model),
        **({"quantized": small} if small else {}),
        "run": None,
    }


def compiled(model):
    """How `Model.compile` was called, or None where it was with functions."""
    if type(model.loss) not in objectives.LOSSES.values():
        return None
    names = [naming.spelled(metric) for metric in model.metrics]
    if None in names:
        return None
    optimizer = model.optimizer
    name, options = None, {}
    if optimizer is not None:
        name, options["lr"] = type(optimizer).__name__.lower(), optimizer.lr
        options |= {one: getattr(optimizer, one) for one in optimizer._hyperparameters}
    return {
        "loss": model.loss.name,
        "loss_options": model.loss.options(),
        "optimizer": name,
        "options": options,
        "metrics": names,
    }


def read(who, path):
    """The arrays of a saved model or checkpoint, and its object, of the right form."""
    arrays, meta = container.read(path, KIND)
    meta.setdefault("frozen", [])  # which older versions did not write
    meta.setdefault("quantized", [])  # which only some files have
    with files.reading(who, str(KIND)):
        check(meta, _META)
    return arrays, meta


def parameters(arrays):
    return {k: v for k, v in arrays.items() if not k.startswith(f"{RUN}.")}


def read_parameters(who, path):
    """The parameters in a file that `save_model` or `Module.save` wrote."""
    return parameters(files.read_safetensors(who, path))
