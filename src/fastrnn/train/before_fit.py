# SPDX-License-Identifier: BSD-3-Clause
"""What can be known before the first step of `fit`: whether its arguments go together.

One sample goes through the model, and its output in place of a batch's through loss and
metrics, in eval mode, and nothing is changed.
Functions of the user's as loss or metric are not tried: they may want whole batches.
They run before the optimiser's first step in any case.
"""

import numpy as np

from fastrnn.data.batches import is_batches
from fastrnn.data.pairs import IGNORED
from fastrnn.losses import metrics, objectives
from fastrnn.nn import masking
from fastrnn.nn.deferred import Unbuilt
from fastrnn.recurrent.layer import Recurrent
from fastrnn.train import stateful
from fastrnn.train.hooks import Callback
from fastrnn.util import checks, seeds


def seed_of(who, seed):
    """A run's seed: the one given, or one that nobody has had."""
    if seed is None:
        return int(seeds.unseeded().integers(2**63))
    checks.generator(who, checks.integer(who, "seed", seed))
    return seed


def validation(model, data, share, steps=None):
    """The samples of fit's `validation_data`, or None."""
    if data is None:
        if steps is not None:
            raise ValueError(
                "fit: validation_steps must be None without validation_data, got "
                f"{steps!r}"
            )
        return None
    if share:
        raise ValueError(
            "fit: validation_data and validation_split must not both be given"
        )
    if is_batches(data):
        who = "fit: validation_data"
        return model._batches(who, data, steps, "validation_steps", anew=True)
    if steps is not None:
        raise ValueError(
            "fit: validation_steps must be None where validation_data is arrays, got "
            f"{steps!r}"
        )
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "fit: validation_data must be (x, y) or (x, y, sample_weight), got "
            f"{type(data).__name__}"
        )
    return model._samples("fit: validation_data", *data)


def check_iterable(x, who="fit", **given):
    """Refuse arguments that go with arrays where `x` gives batches."""
    for name, value in given.items():
        only_mapping = name == "class_weight" and value != "balanced"
        if not (value is None or only_mapping or (type(value) is float and value == 0)):
            raise ValueError(
                f"{who}: {name} must not be given where x gives batches, as this "
                f"{type(x).__name__} does"
            )


def check_axes(model, x):
    """Refuse (N, T) where the first layer of a model reads it as one sequence."""
    first = next(iter(model._leaf_layers()), None)
    cls = first.layer_class if isinstance(first, Unbuilt) else type(first)
    if x.ndim == 2 and issubclass(cls, Recurrent):
        raise ValueError(
            f"{type(model).__name__}: x must have shape (N, T, features) for "
            f"{cls.__name__}, got a batch of {x.shape[1:]}; a series of single "
            "numbers is x[:, :, None]"
        )


def check_balance(model, class_weight, inputs):
    """Refuse to balance classes of steps that a mask is to leave out."""
    makes_masks = any(map(masking.makes_mask, model.modules()))
    if class_weight != "balanced" or not makes_masks:
        return
    model._try(inputs)
    if masking.of_output(model) is not None:
        raise ValueError(
            "fit: class_weight must be a mapping for a model whose output has a "
            "mask, since 'balanced' would count what the mask leaves out"
        )


def check(run):
    """Refuse a run that would fail after its first steps.

    Parameters
    ----------
    run : fastrnn.train.fit.Run
        With a model that has its parameters.

    Raises
    ------
    ValueError, TypeError
        If batches do not fit a stateful model, targets the output, metrics either, or
        if a callback watches a figure that there is not.
    """
    if run.model.optimizer.model is not run.model:
        raise ValueError("fit: the optimizer must be one made for this model")
    size = run.options.batch_size
    for who, samples in (("fit", run.train), ("fit: validation", run.validation)):
        if samples is not None:
            run.reduction.check_stateful(who, run.model, samples, size, False)
            _try_batch(who, run.model, samples, size)
    figures = run.figures
    for callback in run.callbacks.in_order:
        callback._check_run(figures)
        if _adds_figures(callback):
            figures = None


def _adds_figures(callback):
    """Whether a callback of the user's may put figures of its own into the logs."""
    if "on_epoch_end" in vars(callback):
        return True
    method = type(callback).on_epoch_end
    return method is not Callback.on_epoch_end and not method.__module__.startswith(
        "fastrnn."
    )


def _try_batch(who, model, samples, batch_size):
    inputs, target, weight = samples.trial(batch_size)
    loss, n = model.loss, len(target)
    with (
        model._evaluating(),
        stateful.states_of_their_own(model),
    ):
        try:
            pred = model(*inputs)
            pred = pred[0] if isinstance(pred, tuple) else pred
            pred = np.repeat(pred, n, axis=0)
            mask = masking.of_output(model)
            mask = None if mask is None else np.repeat(mask, n, axis=0)
            if not isinstance(loss, objectives.Custom):
                loss.of_batch(pred, target, weight, mask)
            for metric in model.metrics:
                if not isinstance(metric, metrics.Custom):
                    metric.reset()
                    metric.update(pred, target, *(() if mask is None else (mask,)))
                    metric.reset()
            _check_classes(who, loss, pred, samples.y)
        except (TypeError, ValueError) as error:
            if who == "fit":
                raise
            raise type(error)(f"{who}: {error}") from error


def _check_classes(who, loss, pred, y):
    """Refuse a class, anywhere in y, that the output has not."""
    parts = y if isinstance(y, list) else [y]
    if isinstance(loss, objectives.BinaryCrossentropy):
        for part in parts:
            loss.check_range(part)
    of_classes = (
        objectives.SparseCategoricalCrossentropy,
        objectives.ConditionalRandomField,
        objectives.ConnectionistTemporalClassification,
    )
    if isinstance(loss, of_classes):
        for part in parts:
            known = part[part != IGNORED]
            checks.index_array(loss.name, "y", known, pred.shape[-1])
