# SPDX-License-Identifier: BSD-3-Clause
"""Stateful layers of a model: their states from call to call, and whether batches fit.

As in Keras, `predict` and `evaluate` go on from the state that the call before left,
and leave theirs.  `fit` begins every epoch anew, and validation beside it.
"""

import contextlib

from fastrnn.nn.wrappers import TimeDistributed


def stateful_layers(model):
    """The layers of a model that go on from the call before."""
    return [m for m in model.modules() if vars(m).get("stateful", False)]


def reset_states(model):
    """Let stateful layers begin anew."""
    for layer in stateful_layers(model):
        layer.state = None


@contextlib.contextmanager
def states_of_their_own(model):
    """Stateful layers begin anew within the body; then they have their states back."""
    before = [(layer, layer.state) for layer in stateful_layers(model)]
    reset_states(model)
    try:
        yield
    finally:
        for layer, state in before:
            layer.state = state


@contextlib.contextmanager
def states_kept_on_error(model):
    """Stateful layers have their states back if the body fails."""
    before = [(layer, layer.state) for layer in stateful_layers(model)]
    try:
        yield
    except BaseException:
        for layer, state in before:
            layer.state = state
        raise


def check_batches(who, model, samples, batch_size, goes_on):
    """Refuse samples that a stateful model could not take batch after batch.

    Parameters
    ----------
    who : str
        Whom errors name.
    model : Model
    samples : Samples
    batch_size : int
    goes_on : bool
        Whether the first batch goes on from the states that the layers have.

    Raises
    ------
    ValueError
        If batches differ in size, or are not of the size of the states.
    """
    layers = stateful_layers(model)
    if not layers:
        return
    sizes = samples.sizes(batch_size)
    if len(sizes) > 1:
        raise ValueError(
            f"{who}: batch_size must leave no smaller batch for a stateful model, "
            "whose layers go on from batch to batch, got batches of "
            f"{' and '.join(map(str, sizes))} of {samples.n} samples with batch_size "
            f"{batch_size}"
        )
    if not goes_on:
        return
    inside = {
        id(part)
        for module in model.modules()
        if isinstance(module, TimeDistributed)  # its layer sees steps as rows
        for part in module.modules()
    }
    for layer in layers:
        if layer.state is None or id(layer) in inside:
            continue
        h = layer.state[0] if isinstance(layer.state, tuple) else layer.state
        if h.shape[1] != sizes[0]:
            raise ValueError(
                f"{who}: x must come in batches of {h.shape[1]}, as the state of the "
                f"call before has, got {sizes[0]}; reset_states() begins anew"
            )
