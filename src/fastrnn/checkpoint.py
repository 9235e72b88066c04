# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of `fastrnn train`: what the file must hold, and the model in it."""

import os

from fastrnn import container
from fastrnn.charmodel import CharModel
from fastrnn.container import without_prefix
from fastrnn.vocabulary import CharVocabulary

_KIND = container.Kind("fastrnn-charmodel", 1, "a checkpoint", "of fastrnn train")

_INT, _REAL = (int,), (int, float)

# What the JSON object must have, level by level.
_SCHEMA = {
    "version": _INT,
    "model": {
        "cell": (str,),
        "embedding_dim": _INT,
        "hidden_size": _INT,
        "num_layers": _INT,
        "dtype": (str,),
    },
    "vocabulary": (str,),
    "settings": {
        "batch_size": _INT,
        "seq_length": _INT,
        "epochs": _INT,
        "lr": _REAL,
        "clip_norm": _REAL,
        "seed": _INT,
    },
    "text": {"source": (str, type(None)), "characters": _INT, "sha256": (str,)},
    "progress": {
        "step": _INT,
        "loss_sum": _REAL,
        "loss_count": _INT,
        "evaluations": (list,),
    },
    "rng": (dict,),
}


def write(path, arrays, meta):
    """Write a checkpoint so that `path` holds it whole or what it held before.

    The same arrays and the same object give the same bytes.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to ndarray
    meta : dict
        What JSON can hold.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path`.
    """
    container.write(path, arrays, _KIND, meta)


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
    _check_schema(os.fspath(path), "", meta, _SCHEMA)
    return arrays, meta


def _check_schema(path, name, value, rule):
    fits = isinstance(value, dict if isinstance(rule, dict) else rule)
    if not fits or isinstance(value, bool):
        raise ValueError(
            f"{path}: damaged: {name or 'its description'} is of the wrong type, "
            f"{type(value).__name__}"
        )
    if isinstance(rule, dict):
        for key, inner in rule.items():
            below = f"{name}.{key}" if name else key
            if key not in value:
                raise ValueError(f"{path}: damaged: {below} is missing")
            _check_schema(path, below, value[key], inner)


def model_of(path, arrays, meta):
    """The model of a checkpoint that `read` returned.

    Raises
    ------
    ValueError
        If the parameters are not those of the architecture that it names.
    """
    try:
        vocabulary = CharVocabulary(meta["vocabulary"])
        model = CharModel(vocabulary, **meta["model"], seed=0)
        model.load_state_dict(without_prefix("model", arrays))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)}: damaged or of another architecture: {error}"
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
