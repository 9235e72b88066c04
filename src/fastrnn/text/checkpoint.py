# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of `fastrnn train`: what the file must hold, and the model in it."""

import math
import os

from fastrnn.text.model import CharModel
from fastrnn.text.vocabulary import CharVocabulary
from fastrnn.util import budget, container, files
from fastrnn.util.container import without_prefix
from fastrnn.util.printable import short
from fastrnn.util.schema import any_of, check, finite, integer, list_of, number, row_of
from fastrnn.util.writing import write_atomically

_KIND = container.Kind("fastrnn-charmodel", 1, "a checkpoint", "of fastrnn train")

_COUNT, _POSITIVE = integer(0), integer(1)

# What the JSON object must have, level by level. The constructors of what is made of it
# have rules of their own, in addition.
_SCHEMA = {
    "version": integer(),
    "model": {
        "cell": str,
        "embedding_dim": _POSITIVE,
        "hidden_size": _POSITIVE,
        "num_layers": _POSITIVE,
        "dtype": str,
        "compute": str,
    },
    "vocabulary": str,
    "settings": {
        "batch_size": _POSITIVE,
        "seq_length": _POSITIVE,
        "epochs": _POSITIVE,
        "lr": number,
        "clip_norm": number,
        "seed": integer(0, math.inf),
    },
    "text": {
        "source": any_of(None, str),
        "characters": _COUNT,
        "sha256": str,
    },
    "progress": {
        "step": _COUNT,
        "loss_sum": finite,
        "loss_count": _COUNT,
        "evaluations": list_of(row_of(_COUNT, number, number)),
    },
    "rng": dict,
}


def _add_later(meta):
    """Give a file from before `compute` what it stood for."""
    model = meta.get("model") if isinstance(meta, dict) else None
    if isinstance(model, dict) and "dtype" in model:
        model.setdefault("compute", model["dtype"])


def write(path, arrays, meta, write=write_atomically):
    """Write a checkpoint so that `path` holds it whole or what it held before.

    The same arrays and the same object give the same bytes.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to ndarray
    meta : dict
        What JSON can hold.
    write : callable
        Writes the bytes: ``write(path, data)``.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path`.
    """
    container.write(path, arrays, _KIND, meta, write)


def read(path):
    """The arrays and the JSON object of a checkpoint.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    arrays : dict of str to ndarray
    meta : dict

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a checkpoint of this program, or damaged.
    """
    arrays, meta = container.read(path, _KIND)
    try:
        _add_later(meta)
        check(meta, _SCHEMA)
    except ValueError as error:
        raise ValueError(short(f"{os.fspath(path)}: damaged: {error}")) from error
    return arrays, meta


def model_of(path, arrays, meta):
    """The model of a checkpoint that `read` returned.

    Raises
    ------
    ValueError
        If the parameters are not those of the architecture that it names.
    """
    parameters = without_prefix("model", arrays)
    try:
        vocabulary = CharVocabulary(meta["vocabulary"])
        with budget.limited(*files.stored(parameters.values())):
            model = CharModel(vocabulary, **meta["model"], seed=0)
        model.load_state_dict(parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(
            short(f"{os.fspath(path)}: damaged or of another architecture: {error}")
        ) from error
    return model


def load_model(path):
    """The trained model in a checkpoint, in eval mode.

    Parameters
    ----------
    path : path-like
        Written by ``fastrnn train``.

    Returns
    -------
    CharModel

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a checkpoint, or damaged.
    """
    return model_of(path, *read(path)).eval()
