# SPDX-License-Identifier: BSD-3-Clause
"""`load_model`: the model in a file, made of nothing but what the file may say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np

from fastrnn.losses import objectives
from fastrnn.nn.deferred import build_as_stored, is_built
from fastrnn.nn.describe import construct
from fastrnn.nn.module import Module
from fastrnn.nn.trainable import freeze_only, named
from fastrnn.train.model import Model
from fastrnn.train.quantizing import make_small
from fastrnn.train.saving import KIND, MOST_SEEN, parameters, read
from fastrnn.util import budget, files
from fastrnn.util.typing import PathLike


def load_model(
    path: PathLike, custom_layers: Mapping[str, type[Module]] | None = None
) -> Model:
    """The model in a file that `Model.save` or `ModelCheckpoint` wrote.

    Parameters
    ----------
    path : path-like
    custom_layers : mapping of str to type, optional
        Layers of your own that the model has, by the names of their classes. A class
        must keep its constructor's arguments in attributes of the same names.

    Returns
    -------
    Model
        With the bits that were saved; compiled as it was, with a fresh optimiser,
        unless with functions as loss or metric.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a saved model, or damaged, or has a layer that is not known, or
        says anything that it does not have: the error names the file.

    Notes
    -----
    What is in a file is not trusted, here and wherever fastrnn reads one
    (`Module.load`, ``fit(resume=)``, `fastrnn.keras.load`, `fastrnn.onnx.load`,
    vocabularies, tokenisers, checkpoints and texts of the command line):

    - Nothing in a file is run. It sets nothing but what models and runs are made of.
    - Only regular files are read. A file names no other one, with two exceptions: an
      ONNX file may have data in files below its own folder, behind no link, and
      ``fastrnn train --resume`` reads the text that the checkpoint names if that is a
      regular file of the size that was noted. A text that the user names may come out
      of a pipe, too.
    - What a file declares is compared with what it has before it is allocated or
      computed: a model takes as much memory as its parameters in the file, what is
      unpacked from an archive or computed from an ONNX file's constants at most four
      times the file and 32 MiB. All in all, reading stays below ten times the file and
      64 MiB, and ends. The integers of at most two bytes in a quantised ONNX file,
      which become float32, count as four bytes each.
    - Contents that are anything else raise ValueError. Its message, and what the
      command line shows of a file's text, have escapes for what acts on a terminal.

    The packages safetensors, h5py and onnx make sense of the bytes of their formats, in
    compiled code: a fault of theirs is not one that fastrnn can find.

    Examples
    --------
    >>> model = fastrnn.Sequential(fastrnn.Linear(2, 1, seed=0))
    >>> model.save("model.safetensors")
    >>> again = load_model("model.safetensors")
    >>> again
    Sequential(
      (0): Linear(2, 1)
    )
    """
    who = f"load_model: {os.fspath(path)}"
    arrays, meta = read(who, path)
    classes = known_layers() | dict(custom_layers or {})
    with files.reading(who, str(KIND)):
        return _model_of(parameters(arrays), meta, classes)


def _model_of(parameters, meta, classes):
    small = meta["quantized"]
    n_bytes, n_arrays = files.stored(parameters.values())
    # What a class makes for itself is whole at first, zeros that nobody touches.
    with budget.limited(n_bytes * (4 if small else 1), n_arrays):
        model = construct(meta["model"], classes)
        if not isinstance(model, Model):
            raise ValueError(f"model must be a Model, got a {type(model).__name__}")
        # Parts of a class of the user's may have input sizes that it does not know.
        build_as_stored(model, parameters)
        with budget.limited(math.inf, math.inf):  # no larger than what they replace
            make_small(model, small)
        _let_see(model, meta["seen"])
    model._load("load_model", parameters)
    freeze_only(model, named(model, meta["frozen"]))
    compiled = meta["compiled"]
    if compiled is not None:
        loss = objectives.LOSSES[compiled["loss"]](**compiled["loss_options"])
        model.compile(
            loss, compiled["optimizer"], compiled["metrics"], **compiled["options"]
        )
    return model


def _let_see(model, seen):
    """Let a model have seen a sample of these shapes, nothing being allocated."""
    n = sum(math.prod(shape) for shape, _ in seen)
    if n > MOST_SEEN:
        raise ValueError(f"seen must have at most {MOST_SEEN:,} elements, got {n:,}")
    inputs = tuple(np.broadcast_to(np.zeros((), dtype), shape) for shape, dtype in seen)
    if inputs:
        inputs = model._example(inputs)
        if is_built(model):
            model._seen = inputs
        else:
            model._see(inputs)


def known_layers():
    """Layers and models of this package that a file may name, by their names."""
    return dict(Module.in_files)
