# SPDX-License-Identifier: BSD-3-Clause
"""`LSTM`, `GRU` and `SimpleRNN`: Keras's own layers with another `inner_loop`.

Keras's layers prepare a call (initial states, masks, dropout's mask), and hand it to
`inner_loop`, which goes through the sequence. The layers here arrange the parts of a
call as the kernels want them, with operations of Keras's, so that each backend of Keras
differentiates and traces them. A module of its own for each backend runs the kernels.

Contract of such a module
-------------------------
``run(form, x, h0, c0, weights, mask, hold, site) -> (y, h_n, c_n)``
    Runs the recurrence of a `Form` over tensors of the backend, differentiably. x has
    shape (B, T, I), y (B, T, H), states (B, H), the mask (B, T) is of bool or is None;
    c0 and c_n are None but for an LSTM. Masked steps hand the states on; there y shows
    the output before with `hold`, which is zero before the first that is computed, and
    zero without. `weights` are those of `forms.weights`. `site` is an object that
    belongs to one layer, is hashable, can be weakly referred to, and lives as long.
``problem(layer, x, states, mask) -> str or None``
    Why this backend cannot run a call on the kernels, in the user's words. `x`,
    `states` and `mask` are as `inner_loop` was given them: x may be of integers.
``rows(array, order) -> tensor``, optional
    As `forms.rows`, which takes longer where operations of Keras's are called one by
    one.
``SUPPORTS_JIT : bool``
    Whether Keras may compile the layer with ``jit_compile=True``.
``SHOWS_INITIAL_STATE : bool``
    What Keras's own layer shows on this backend at masked steps before the first one
    that is computed: the initial state, or zero.
"""

import weakref

import keras
from keras import ops, tree
from keras.src import api_export

from fastrnn.keras.drop_in import forms, paths


class Site:
    """What stands for one layer where packed weights are kept; see the module."""

    __slots__ = ("__weakref__",)


_sites = weakref.WeakKeyDictionary()


def _site(layer):
    found = _sites.get(layer)
    if found is None:
        found = _sites[layer] = Site()
    return found


class _SupportsJit:
    """The attribute `supports_jit` of a layer: False where the kernels do not allow it.

    What Keras set it to stays in the object's own dict, for when the object gets its
    class of Keras back.
    """

    def __get__(self, layer, owner=None):
        if layer is None:
            return self
        if "supports_jit" not in vars(layer):
            raise AttributeError(f"{type(layer).__name__} has no supports_jit yet")
        module = paths.backend()
        return vars(layer)["supports_jit"] and (module is None or module.SUPPORTS_JIT)

    def __set__(self, layer, value):
        vars(layer)["supports_jit"] = value


def _inner_loop(layer, original, sequences, initial_state, mask, training):
    """Run a call on the kernels, or by Keras's `original` if they cannot."""
    states = initial_state
    if not tree.is_nested(states):
        states = [states]
    one_mask = mask[0] if tree.is_nested(mask) else mask
    problem = paths.call_problem(layer, sequences, states, one_mask, training)
    paths.note(layer, problem)
    if problem is not None:
        return original(sequences, initial_state, mask, training=training)
    return _run(layer, sequences, states, one_mask, training)


def _run(layer, sequences, states, mask, training):
    """Run a call on the kernels.

    Returns
    -------
    last_output, outputs, states
        As of ``keras.layers.RNN.inner_loop``.
    """
    cell, module = layer.cell, paths.backend()
    x = ops.cast(sequences, cell.compute_dtype)
    if training and cell.dropout:
        # Keras has drawn it already, for the first step, and keeps it for the call.
        noise = cell.get_dropout_mask(sequences[:, 0, :])
        x = x * ops.cast(ops.expand_dims(noise, 1), cell.compute_dtype)
    if mask is not None:
        mask = ops.cast(mask, "bool")
    if layer.go_backwards:
        x = ops.flip(x, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    hold = not layer.zero_output_for_mask
    h0, c0 = states if len(states) == 2 else (states[0], None)
    weights = forms.weights(layer, getattr(module, "rows", forms.rows))
    y, h_n, c_n = module.run(
        forms.form(layer), x, h0, c0, weights, mask, hold, _site(layer)
    )
    last = h_n
    if mask is not None:
        # Taken of h_n: a gradient of y would be zero but for one step.
        if not hold:
            last = _where(mask[:, -1], h_n, ops.zeros_like(h_n))
        elif not module.SHOWS_INITIAL_STATE:
            last = _where(ops.any(mask, axis=1), h_n, ops.zeros_like(h_n))
        elif layer.return_sequences:
            begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
            y = _where(begun, y, ops.expand_dims(h0, 1))
    return last, y, [h_n] if c_n is None else [h_n, c_n]


def _where(condition, array, other):
    """`ops.where` with a condition that lacks the last axis."""
    return ops.where(ops.expand_dims(condition, -1), array, other)


class SimpleRNN(keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` on fastrnn's kernels.

    Everything but the speed is Keras's: arguments, weights, results, configuration. A
    call that the kernels cannot run goes Keras's own way; `fastrnn.keras.explain` tells
    for a call whether it does, and why. A model that is saved with such a layer names
    ``keras.layers.SimpleRNN``, and loads where fastrnn is not installed.

    Examples
    --------
    >>> import keras, numpy as np
    >>> layer = fastrnn.keras.SimpleRNN(5, return_sequences=True)
    >>> tuple(layer(np.zeros((2, 7, 3), "float32")).shape)
    (2, 7, 5)
    """

    supports_jit = _SupportsJit()

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Go through sequences, as ``keras.layers.SimpleRNN.inner_loop`` does."""
        return _inner_loop(
            self, super().inner_loop, sequences, initial_state, mask, training
        )


class LSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` on fastrnn's kernels.

    Everything but the speed is Keras's: arguments, weights, results, configuration. A
    call that the kernels cannot run goes Keras's own way; `fastrnn.keras.explain` tells
    for a call whether it does, and why. A model that is saved with such a layer names
    ``keras.layers.LSTM``, and loads where fastrnn is not installed.

    Examples
    --------
    >>> import keras, numpy as np
    >>> layer = fastrnn.keras.LSTM(5, return_state=True)
    >>> y, h, c = layer(np.zeros((2, 7, 3), "float32"))
    >>> tuple(y.shape), isinstance(layer, keras.layers.LSTM)
    ((2, 5), True)
    """

    supports_jit = _SupportsJit()

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Go through sequences, as ``keras.layers.LSTM.inner_loop`` does."""
        return _inner_loop(
            self, super().inner_loop, sequences, initial_state, mask, training
        )


class GRU(keras.layers.GRU):
    """`keras.layers.GRU` on fastrnn's kernels.

    Everything but the speed is Keras's: arguments, weights, results, configuration. A
    call that the kernels cannot run goes Keras's own way; `fastrnn.keras.explain` tells
    for a call whether it does, and why. A model that is saved with such a layer names
    ``keras.layers.GRU``, and loads where fastrnn is not installed.

    Examples
    --------
    >>> import keras, numpy as np
    >>> layer = fastrnn.keras.GRU(5, reset_after=False)
    >>> tuple(layer(np.zeros((2, 7, 3), "float32")).shape)
    (2, 5)
    """

    supports_jit = _SupportsJit()

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Go through sequences, as ``keras.layers.GRU.inner_loop`` does."""
        return _inner_loop(
            self, super().inner_loop, sequences, initial_state, mask, training
        )


OURS = {
    keras.layers.SimpleRNN: SimpleRNN,
    keras.layers.LSTM: LSTM,
    keras.layers.GRU: GRU,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}

for _theirs, _ours in OURS.items():
    # Keras writes an object of its own by the public name of the object's class. It has
    # no public function that gives a class such a name. Under a name of fastrnn's, a
    # saved model would not load without fastrnn.
    _name = api_export.get_name_from_symbol(_theirs)
    api_export.REGISTERED_OBJS_TO_NAMES[_ours] = _name
