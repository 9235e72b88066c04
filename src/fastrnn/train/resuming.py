# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: a run in the middle, written after an epoch and taken up again.

A checkpoint is the file of a saved model that has in addition what its run needs to go
on: the optimiser's arrays, the states of random generators, the order of samples, the
history, and what each callback keeps.
"""

import contextlib
import math
import os
from dataclasses import asdict

import numpy as np

from fastrnn.nn.describe import describe
from fastrnn.nn.trainable import freeze_only, named
from fastrnn.train.history import History
from fastrnn.train.saving import KIND, RUN, compiled, describe_model, parameters, read
from fastrnn.util import container
from fastrnn.util.container import with_prefix, without_prefix
from fastrnn.util.printable import short
from fastrnn.util.schema import check, dict_of, integer, list_of, row_of

# Options that older versions did not write, as their runs had them.
_LATER = {"gradient_accumulation_steps": 1}

_RUN_META = {
    "options": dict,
    "seed": integer(0, math.inf),
    "history": dict,
    "generators": list_of(dict_of(dict)),
    "callbacks": list_of(row_of(str, dict)),
}


def save_checkpoint(run, path):
    """Write a model in the middle of a run, after an epoch.

    Parameters
    ----------
    run : fastrnn.train.fit.Run
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
    meta = describe_model(model)
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
    arrays = model.state_dict() | with_prefix(RUN, arrays)
    container.write(path, arrays, KIND, meta)


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
    run : fastrnn.train.fit.Run
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
    arrays, meta = read(f"fit: {path}", path)
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
        values = run.model._values(f"fit: {path}", parameters(arrays))
        extra = without_prefix(RUN, arrays)
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
    loss = [one and one["loss"] for one in (meta["compiled"], compiled(run.model))]
    for what, found, ours in (
        ("the model", meta["model"], describe(run.model)),
        ("the loss", *loss),
        ("the run's options", _LATER | kept["options"], asdict(run.options)),
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
