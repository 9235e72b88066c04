# SPDX-License-Identifier: BSD-3-Clause
"""The optimiser that `Model.compile` makes of a name, a class or an object."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict, TypeVar, cast

from fastrnn.losses.base import Loss
from fastrnn.losses.metrics import Metric
from fastrnn.nn.deferred import is_built
from fastrnn.train.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.train.optimizer import Optimizer
from fastrnn.util import checks
from fastrnn.util.words import arguments_of, owners_of, refuse, word_of

# What `Model.compile` takes.
Function = TypeVar("Function", bound=Callable[..., None])

OPTIMIZERS = {cls.__name__.lower(): cls for cls in (SGD, RMSprop, Adagrad, Adam, AdamW)}

LossLike: TypeAlias = str | Loss | Callable[..., tuple[Any, Any]]
OptimizerLike: TypeAlias = str | Optimizer | type[Optimizer] | None
MetricLike: TypeAlias = str | Metric | Callable[..., Any]


class OptimizerOptions(TypedDict, total=False):
    """What `compile` hands on to the optimiser, for checkers: each takes some."""

    lr: float
    learning_rate: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool
    alpha: float
    rho: float
    eps: float
    epsilon: float
    centered: bool
    lr_decay: float
    initial_accumulator_value: float
    betas: tuple[float, float]
    amsgrad: bool


class DecodeOptions(TypedDict, total=False):
    """What `predict` takes for losses that decode, for checkers."""

    beam_width: int


def is_optimizer(value):
    """Whether a value says which optimiser: one, a class, or the name of one."""
    if isinstance(value, str):
        return value.lower() in OPTIMIZERS
    is_class = isinstance(value, type) and issubclass(value, Optimizer)
    return is_class or isinstance(value, Optimizer)


def in_either_order(compile: Function) -> Function:
    """Let `Model.compile` take its arguments in Keras's order, too: optimizer first.

    A name, class or object says by itself whether it is an optimiser's or a loss's.
    """

    @functools.wraps(compile)
    def compiled(self, *args, **kwargs):
        if args and is_optimizer(args[0]):
            names = ("optimizer", "loss", "loss_weights", "metrics")
            given = dict(zip(names, args, strict=False))
            twice = [name for name in given if name in kwargs]
            if twice or len(args) > len(given):
                what = twice[0] if twice else f"{len(args)} positional arguments"
                raise TypeError(f"compile() got {what!r} more than once")
            args, kwargs = (), given | kwargs
        return compile(self, *args, **kwargs)

    return cast(Function, compiled)


def optimizer_of(who, model, optimizer, options):
    """The optimiser of a model, now or once the model has its parameters.

    Parameters
    ----------
    who : str
        Whom errors name.
    model : Model
    optimizer : str, class, Optimizer or None
    options : dict of str to object
        The optimiser's arguments.

    Returns
    -------
    Optimizer
        Without a model yet where this one has no parameters. None where none is given.

    Raises
    ------
    ValueError, TypeError
        If a name is unknown, an option is none of the optimiser's or has a wrong value,
        or a ready-made optimiser is another model's or comes with options.
    """
    if optimizer is None:
        if options:
            raise ValueError(
                f"{who}: options of an optimizer must not be given without one, got "
                f"{', '.join(options)}"
            )
        return None
    if isinstance(optimizer, Optimizer):
        if optimizer.model not in (None, model) or options:
            raise ValueError(
                f"{who}: an optimizer must be one made for this model, and its "
                "options are given where it is made"
            )
        made = optimizer
    else:
        if isinstance(optimizer, str):
            optimizer = optimizer.lower()
            checks.choice(who, "optimizer", optimizer, tuple(OPTIMIZERS))
            optimizer = OPTIMIZERS[optimizer]
        if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
            raise TypeError(
                f"{who}: optimizer must be a name, a class or an optimiser, got "
                f"{optimizer!r}"
            )
        _check_options(who, optimizer, options)
        made = optimizer(None, **options)
    if made.model is None and is_built(model):
        made._attach(model)
    return made


def options_of(given):
    """Options of an optimiser, without what only Keras's `compile` has."""
    options = {}
    for name, value in given.items():
        word = word_of(["compile"], name)
        if word is None:
            options[name] = value
        elif not word.changes_nothing(value):
            raise refuse("compile", name, (), word.answer)
    return options


def _check_options(who, cls, options):
    """Refuse an option that is neither the optimiser's nor anything else's."""
    known = arguments_of(cls.__init__)[1:]
    for name in options:
        if name not in known and word_of(owners_of(cls), name) is None:
            raise refuse(who, name, ["loss", "optimizer", "metrics", *known])
