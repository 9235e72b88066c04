# SPDX-License-Identifier: BSD-3-Clause
"""The optimiser that `Model.compile` makes of a name, a class or an object."""

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict

from fastrnn.losses.metrics import Metric
from fastrnn.nn.deferred import is_built
from fastrnn.nn.layers import Linear
from fastrnn.train.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.train.optimizer import Optimizer
from fastrnn.util import checks

OPTIMIZERS = {cls.__name__.lower(): cls for cls in (SGD, RMSprop, Adagrad, Adam, AdamW)}

LossFunction: TypeAlias = Callable[..., tuple[Any, Any]]
MetricLike: TypeAlias = str | Metric | Callable[..., Any]


class OptimizerOptions(TypedDict, total=False):
    """What `compile` hands on to the optimiser, for checkers: each takes some."""

    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool
    alpha: float
    eps: float
    centered: bool
    lr_decay: float
    initial_accumulator_value: float
    betas: tuple[float, float]
    amsgrad: bool


class DecodeOptions(TypedDict, total=False):
    """What `predict` takes for losses that decode, for checkers."""

    beam_width: int


def optimizer_of(who, model, optimizer, options):
    """The optimiser of a model, now or once the model has its parameters.

    Parameters
    ----------
    who : str
        Whom errors name.
    model : Model
    optimizer : str, class or Optimizer
    options : dict of str to object
        The optimiser's arguments.

    Returns
    -------
    made : Optimizer or None
        None where the model has no parameters yet.
    make : (class, dict) or None
        Class and arguments of the optimiser; None where it was given ready-made.

    Raises
    ------
    ValueError, TypeError
        If a name is unknown, an option is none of the optimiser's or has a wrong value,
        or a ready-made optimiser is another model's or comes with options.
    """
    if isinstance(optimizer, Optimizer):
        if optimizer.model is not model or options:
            raise ValueError(
                f"{who}: an optimizer must be one made for this model, and its "
                "options are given where it is made"
            )
        return optimizer, None
    if isinstance(optimizer, str):
        optimizer = optimizer.lower()
        checks.choice(who, "optimizer", optimizer, tuple(OPTIMIZERS))
        optimizer = OPTIMIZERS[optimizer]
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise TypeError(
            f"{who}: optimizer must be a name, a class or an optimiser, got "
            f"{optimizer!r}"
        )
    known = list(inspect.signature(optimizer).parameters)[1:]
    for name in options:
        if name not in known:
            raise TypeError(
                f"{who}: options of {optimizer.__name__} must be among "
                f"{', '.join(known)}, got {name}"
            )
    # On a model of one number, so that a wrong option is found now.
    optimizer(Linear(1, 1, seed=0), **options)
    made = optimizer(model, **options) if is_built(model) else None
    return made, (optimizer, options)
