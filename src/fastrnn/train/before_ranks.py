# SPDX-License-Identifier: BSD-3-Clause
"""What can be known before several processes train together: whether they can.

`fastrnn.train.before_fit` has what is asked of any run.
"""

import zlib

import numpy as np

from fastrnn.losses.metrics import Metric
from fastrnn.nn import masking
from fastrnn.nn.trainable import frozen
from fastrnn.recurrent.layer import Recurrent

# Samples whose bytes are compared before a run in which all ranks have all.
_COMPARED = 64


def check_summed(who, metric):
    """Refuse a metric of which nobody says how those of several ranks add up."""
    cls = type(metric)
    resets = next(c for c in cls.__mro__ if "reset" in vars(c))
    says = next(c for c in cls.__mro__ if "summed" in vars(c))
    if resets is not Metric and not issubclass(says, resets):
        raise ValueError(
            f"{who}: {resets.__name__} must say in an attribute `summed` which of its "
            "attributes add up over ranks, as it has a reset of its own"
        )


def check_dropout(who, model):
    """Refuse dropout between recurrent layers that may be told to leave out steps.

    Which rows such a layer computes, and so where its dropout's choices belong, is
    another thing on each rank.
    """
    modules = list(model.modules())
    if any(map(masking.makes_mask, modules)):
        layers = modules
    else:
        layers = [
            getattr(part, name) for part in modules for name in part._given_lengths
        ]
    for layer in layers:
        if isinstance(layer, Recurrent) and layer.dropout and layer.num_layers > 1:
            raise ValueError(
                f"{who}: dropout between layers must be 0 in a distributed run where "
                f"lengths or masks leave out steps, got {layer.dropout:g} of "
                f"{type(layer).__name__}; a Dropout layer between layers may have it"
            )


def facts_of(run, sharded):
    """What all ranks must have alike, by name, short enough for an error."""
    model, optimizer = run.model, run.model.optimizer
    names = [f"{name} {view.shape}" for name, view in model.parameters.items()]
    state = optimizer.state_dict()
    facts = {
        "options of the run": run.options,
        "epochs": run.epochs,
        "type of model": type(model).__name__,
        "parameters": _short(names),
        "dtype": model.dtype,
        "frozen layers": frozen(model),
        "loss": model.loss.name,
        "figures": run.figures,
        "optimizer": repr(optimizer),
        "state of the optimizer": _digest(list(state.values())),
        "callbacks": [type(callback).__name__ for callback in run.callbacks.all],
        "epochs done": len(run.history.epoch),
        "sharded": sharded,
    }
    if not sharded and hasattr(run.train, "n"):
        some = np.unique(np.linspace(0, run.train.n - 1, _COMPARED).astype(np.int64))
        # One at a time: sequences may differ in length.
        taken = [run.train.take(some[i : i + 1]) for i in range(len(some))]
        arrays = [a for x, y, w in taken for a in (*x, y, w) if a is not None]
        facts["samples, as sharded is False"] = run.train.n, _digest(arrays)
    return facts


def _short(names):
    text = ", ".join(names)
    return text if len(text) < 400 else f"{len(names)} parameters, {_digest(names)}"


def _digest(values):
    crc = 0
    for value in values:
        crc = zlib.crc32(np.ascontiguousarray(value).tobytes(), crc)
    return f"{crc:08x}"
