# SPDX-License-Identifier: BSD-3-Clause
"""Whole models in one file: parameters as safetensors, everything else as JSON.

The parameters have the names of `Module.save`.  A checkpoint has in addition what a run
needs to go on: the optimiser's arrays, the generators' states, the order of samples,
the history, and what each callback keeps.
"""

import contextlib
import math
import os
from dataclasses import asdict

import numpy as np

from fastrnn import _files, _room, container, metrics, objectives
from fastrnn._printable import short
from fastrnn._schema import (
    any_of,
    check,
    dict_of,
    integer,
    list_of,
    matching,
    one_of,
    row_of,
)
from fastrnn._trainable import freeze_only, frozen, named
from fastrnn.build import build_as_stored, construct, describe, is_built
from fastrnn.container import with_prefix, without_prefix
from fastrnn.history import History
from fastrnn.module import Module

_KIND = container.Kind("fastrnn-model", 1, "a model", "saved by fastrnn")
_RUN = "training"  # before the names of arrays that are not parameters

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
    "optimizer": str,
    "options": dict,
    "metrics": list_of(str),
}
_META = {
    "model": dict,
    "seen": list_of(_SEEN, most=32),
    "compiled": any_of(None, _COMPILED),
    "frozen": list_of(str),
    "run": any_of(None, dict),
}
_RUN_META = {
    "options": dict,
    "seed": integer(0, math.inf),
    "history": dict,
    "generators": list_of(dict_of(dict)),
    "callbacks": list_of(row_of(str, dict)),
}


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
    container.write(path, model.state_dict(), _KIND, _meta(model))


def _meta(model):
    seen = [[list(one.shape), one.dtype.name] for one in model._seen or ()]
    if sum(math.prod(shape) for shape, _ in seen) > MOST_SEEN:
        seen = []
    return {
        "model": describe(model),
        "seen": seen,
        "compiled": _compiled(model),
        "frozen": frozen(model),
        "run": None,
    }


def _compiled(model):
    """How `Model.compile` was called, or None where it was with functions."""
    if model.optimizer is None or type(model.loss) not in objectives.LOSSES.values():
        return None
    names = [metric.name for metric in model.metrics]
    if any(isinstance(metric, metrics.Custom) for metric in model.metrics):
        return None
    optimizer = model.optimizer
    options = {name: getattr(optimizer, name) for name in optimizer._hyperparameters}
    return {
        "loss": model.loss.name,
        "loss_options": model.loss.options(),
        "optimizer": type(optimizer).__name__.lower(),
        "options": {"lr": optimizer.lr, **options},
        "metrics": names,
    }


def save_checkpoint(run, path):
    """Write a model in the middle of a run, after an epoch.

    Parameters
    ----------
    run : fastrnn.fit.Run
    path : path-like
    """
    model = run.model
    states = [callback.state() for callback in run.callbacks.all]
    arrays = {
        f"callback.{i}.{name}": value
        for i, state in enumerate(states)
        for name, value in state.items()
        if isinstance(value, np.ndarray)
    }
    arrays |= with_prefix("optimizer", model.optimizer.state_dict())
    meta = _meta(model)
    meta["run"] = {
        "options": asdict(run.options),
        "seed": run.seed,
        "history": run.history.to_json(),
        "generators": [_generators(module) for module in model.modules()],
        "callbacks": [
            [
                type(callback).__name__,
                {k: v for k, v in state.items() if not isinstance(v, np.ndarray)},
            ]
            for callback, state in zip(run.callbacks.all, states, strict=True)
        ],
    }
    arrays = model.state_dict() | with_prefix(_RUN, arrays)
    container.write(path, arrays, _KIND, meta)


def _generators(module):
    return {
        name: value.bit_generator.state
        for name, value in sorted(vars(module).items())
        if isinstance(value, np.random.Generator)
    }


def resume(path, run, seed=None):
    """What brings a run, its model and its callbacks to where a checkpoint's run was.

    Parameters
    ----------
    path : path-like
        Written by `ModelCheckpoint`.
    run : fastrnn.fit.Run
        Of a model of the same make, compiled alike, with the same options, and with
        callbacks of the same kinds in the same order.
    seed : int, optional
        What the run's seed must be.

    Returns
    -------
    callable
        Changes them all, or raises and changes none: a callback may refuse its state.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a checkpoint, or of another run.
    """
    path = os.fspath(path)
    arrays, meta = _read(f"fit: {path}", path)
    kept = meta["run"]
    if kept is None:
        raise ValueError(
            f"fit: {path}: to go on a run needs a checkpoint, as ModelCheckpoint "
            "writes it, got a model without one"
        )
    with _reading(path):
        check(kept, _RUN_META, "run")
        found = kept["seed"]
        history = History.from_json(kept["history"])
        _check_same_run(run, meta, kept, history)
        values = run.model._values(f"fit: {path}", _parameters(arrays))
        extra = without_prefix(_RUN, arrays)
        state = without_prefix("optimizer", extra)
        optimizer = run.model.optimizer._checked_state(state)
        generators = _checked_generators(run.model, kept["generators"])
        stay = named(run.model, meta["frozen"])
        states = [
            state | without_prefix(f"callback.{i}", extra)
            for i, (_, state) in enumerate(kept["callbacks"])
        ]
    if seed not in (None, found):
        raise ValueError(
            f"fit: seed must be that of the run to go on with, {found}, got {seed!r}"
        )

    def change():
        with _reading(path):
            _load_states(run.callbacks.all, states)
        # Nothing can fail from here on.
        run.model._set(values)
        freeze_only(run.model, stay)
        run.model.optimizer._set_state(optimizer)
        for generator, state in generators:
            generator.bit_generator.state = state
        run.seed, run.history = found, history

    return change


@contextlib.contextmanager
def _reading(path):
    """What is wrong with a checkpoint's contents is an error that names it."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(short(f"fit: cannot go on from {path}: {error}")) from error


def _read(who, path):
    """The arrays of a saved model or checkpoint, and its object, of the right form."""
    arrays, meta = container.read(path, _KIND)
    meta.setdefault("frozen", [])  # which older versions did not write
    with _files.reading(who, str(_KIND)):
        check(meta, _META)
    return arrays, meta


def _load_states(callbacks, states):
    """Let all callbacks take their states back, or none of them."""
    before = [dict(vars(callback)) for callback in callbacks]
    try:
        for callback, state in zip(callbacks, states, strict=True):
            callback.load_state(state)
    except BaseException:
        for callback, attributes in zip(callbacks, before, strict=True):
            vars(callback).clear()
            vars(callback).update(attributes)
        raise


def _check_same_run(run, meta, kept, history):
    """Refuse a checkpoint of another model, of other figures, options or callbacks."""
    if len(history.epoch) > run.epochs:
        raise ValueError(
            f"epochs must be at least those of the checkpoint, {len(history.epoch)}, "
            f"got {run.epochs}"
        )
    compiled = [one and one["loss"] for one in (meta["compiled"], _compiled(run.model))]
    for what, found, ours in (
        ("the model", meta["model"], describe(run.model)),
        ("the loss", *compiled),
        ("the run's options", kept["options"], asdict(run.options)),
        (
            "callbacks",
            [name for name, _ in kept["callbacks"]],
            [type(callback).__name__ for callback in run.callbacks.all],
        ),
        ("the figures", sorted(history.history), sorted(run.figures)),
    ):
        if found != ours:
            raise ValueError(f"{what} must be {found}, got {ours}")


def _checked_generators(model, kept):
    """Pairs of a model's generators and the states for them, known to fit."""
    pairs = []
    for module, states in zip(model.modules(), kept, strict=True):
        names = sorted(_generators(module))
        if sorted(states) != names:
            raise ValueError(
                f"generators must be {names} of a {type(module).__name__}, got "
                f"{sorted(states)}"
            )
        for name, state in states.items():
            generator = vars(module)[name]
            type(generator.bit_generator)().state = state  # raises if it is none
            pairs.append((generator, state))
    return pairs


def _parameters(arrays):
    return {k: v for k, v in arrays.items() if not k.startswith(f"{_RUN}.")}


def read_parameters(who, path):
    """The parameters in a file that `save_model` or `Module.save` wrote."""
    return _parameters(_files.read_safetensors(who, path))


def load_model(path, custom_layers=None):
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
      64 MiB, and ends.
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
    arrays, meta = _read(who, path)
    classes = known_layers() | dict(custom_layers or {})
    with _files.reading(who, str(_KIND)):
        return _model_of(_parameters(arrays), meta, classes)


def _model_of(parameters, meta, classes):
    from fastrnn.model import Model  # it needs this module first

    with _room.limited(*_files.stored(parameters.values())):
        model = construct(meta["model"], classes)
        if not isinstance(model, Model):
            raise ValueError(f"model must be a Model, got a {type(model).__name__}")
        # Parts of a class of the user's may have input sizes that it does not know.
        build_as_stored(model, parameters)
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
    """Layers and models of this package, by name."""
    import fastrnn
    import fastrnn.keras  # for models that its `load` made

    public = (
        getattr(package, name)
        for package in (fastrnn, fastrnn.keras)
        for name in package.__all__
    )
    return {
        thing.__name__: thing
        for thing in public
        if isinstance(thing, type) and issubclass(thing, Module)
    }
