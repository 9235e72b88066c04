# SPDX-License-Identifier: BSD-3-Clause
"""Models under Keras's names, and `load_model` for files of both libraries."""

import os
from typing import TYPE_CHECKING, Any

from fastrnn.keras._absent import answers
from fastrnn.keras._build import load
from fastrnn.train import loading
from fastrnn.train.model import Model
from fastrnn.train.sequential import Sequential

_OF_KERAS = (".keras", ".h5", ".hdf5")


def load_model(path: str | os.PathLike[str], **options: Any) -> Model:
    """A saved model: `fastrnn.load_model`, or `fastrnn.keras.load` by the path's end.

    Parameters
    ----------
    path : path-like
        Files that end in ``.keras``, ``.h5`` or ``.hdf5`` are Keras's.
    **options
        As the function takes them.

    Returns
    -------
    Model

    Raises
    ------
    OSError, ValueError
        As the function does.
    """
    ending = os.path.splitext(os.fspath(path))[1].lower()
    read: Any = load if ending in _OF_KERAS else loading.load_model
    return read(path, **options)


__all__ = ["Model", "Sequential", "load_model"]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("models", globals())
