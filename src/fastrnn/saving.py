# SPDX-License-Identifier: BSD-3-Clause
"""Whole models in one file: parameters as safetensors, everything else as JSON.

The parameters have the names of `Module.save`.  A checkpoint has in addition what a run
needs to go on: the optimiser's arrays, the generators' states, the order of samples,
the history, and what each callback keeps.
"""

import contextlib
import os
from dataclasses import asdict

import numpy as np

from fastrnn import _check, _files, container, metrics, objectives
from fastrnn._trainable import freeze_only, frozen, named
from fastrnn.build import construct, describe
from fastrnn.container import with_prefix, without_prefix
from fastrnn.history import History
from fastrnn.module import Module

_KIND = container.Kind("fastrnn-model", 1, "a model", "saved by fastrnn")
_RUN = "training"  # before the names of arrays that are not parameters


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
    arrays, meta = container.read(path, _KIND)
    kept = meta.get("run")
    if kept is None:
        raise ValueError(
            f"fit: {path}: to go on a run needs a checkpoint, as ModelCheckpoint "
            "writes it, got a model without one"
        )
    with _reading(path):
        found = _check.integer("resume", "seed", kept["seed"])
        history = History.from_json(kept["history"])
        _check_same_run(run, meta["model"], kept)
        values = run.model._values(f"fit: {path}", _parameters(arrays))
        extra = without_prefix(_RUN, arrays)
        state = without_prefix("optimizer", extra)
        optimizer = run.model.optimizer._checked_state(state)
        generators = _checked_generators(run.model, kept["generators"])
        stay = named(run.model, meta.get("frozen", ()))
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
    except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"fit: cannot go on from {path}: {error}") from error


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


def _check_same_run(run, model, kept):
    """Refuse a checkpoint of another model, other options or other callbacks."""
    for what, found, ours in (
        ("the model", model, describe(run.model)),
        ("the run's options", kept["options"], asdict(run.options)),
        (
            "callbacks",
            [name for name, _ in kept["callbacks"]],
            [type(callback).__name__ for callback in run.callbacks.all],
        ),
    ):
        if found != ours:
            raise ValueError(f"{what} must be {found}, got {ours}")


def _checked_generators(model, kept):
    """Pairs of a model's generators and the states for them, known to fit."""
    pairs = []
    for module, states in zip(model.modules(), kept, strict=True):
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
        If it is not a saved model, or damaged, or has a layer that is not known.

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
    arrays, meta = container.read(path, _KIND)
    try:
        model = construct(meta["model"], known_layers() | dict(custom_layers or {}))
        inputs = tuple(np.zeros(shape, dtype) for shape, dtype in meta.get("seen", ()))
        if inputs:
            # Parts of a class of the user's may have input sizes that it does not know.
            model._see(model._example(inputs))
        model._load("load_model", _parameters(arrays))
        freeze_only(model, named(model, meta.get("frozen", ())))
        compiled = meta["compiled"]
        if compiled is not None:
            loss = objectives.LOSSES[compiled["loss"]](**compiled["loss_options"])
            model.compile(
                loss, compiled["optimizer"], compiled["metrics"], **compiled["options"]
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"load_model: {os.fspath(path)}: {error}") from error
    return model


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
