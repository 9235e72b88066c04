# SPDX-License-Identifier: BSD-3-Clause
"""`Masking` and `MaskedSequential`: steps of a sequence that recurrent layers skip."""

import numpy as np

from fastrnn import Bidirectional, Sequential, _check
from fastrnn._recurrent import _Recurrent
from fastrnn.module import Module


class Masking(Module):
    """Which steps count: those where not all features have one value.

    Parameters
    ----------
    mask_value : float
    indices : bool
        The input is integers for an `Embedding`, one a step, and passes as it is;
        otherwise masked steps come out as zero.
    batch_first : bool
        The input is (B, T, ...) instead of (T, B, ...).

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> layer = Masking()
    >>> layer.mask(np.array([[[0.0, 2.0], [0.0, 0.0]]]))  # of two steps the first
    array([[ True, False]])
    """

    def __init__(self, mask_value=0.0, indices=False, batch_first=True):
        who = type(self).__name__
        self.mask_value = _check.finite(who, "mask_value", mask_value)
        self.indices = _check.flag(who, "indices", indices)
        self.batch_first = _check.flag(who, "batch_first", batch_first)

    def mask(self, x):
        """The mask (B, T) that `x` gives recurrent layers: False is left out."""
        mask = np.asarray(x) != self.mask_value
        mask = mask if self.indices else mask.any(axis=-1)
        return mask if self.batch_first else mask.T

    def forward(self, x):
        """Set masked steps to zero.

        Parameters
        ----------
        x : array_like, shape (B, T, features), or (B, T) of indices

        Returns
        -------
        ndarray, shape of `x`

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers with these axes.
        """
        who = type(self).__name__
        if self.indices:
            self._keep(None)
            return np.asarray(x)
        x = _check.float_array(who, "x", x, _check.float_dtype(x))
        axes = ("B", "T") if self.batch_first else ("T", "B")
        _check.shape(who, "x", x, (*axes, "features"), (None, None, None))
        counts = (x != self.mask_value).any(axis=-1, keepdims=True)
        self._keep(counts)
        return x * counts

    def backward(self, dy, *, context=None):
        """Gradient of the input: that of the output at the steps that count.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output; None of indices.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, shape of `dy`, or None

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        """
        context = self._context(context)
        counts = context.saved
        dx = None if counts is None else np.asarray(dy) * counts
        context.release()
        return dx

    def extra_repr(self):
        """The arguments that `repr` shows."""
        indices = ", indices=True" if self.indices else ""
        return f"{self.mask_value:g}{indices}"


class MaskedSequential(Sequential):
    """A `Sequential` whose recurrent layers leave out what a `Masking` says.

    As in Keras: a masked step changes no state, and its output is the one before it,
    or zero where a layer has both directions. A layer with ``return_sequences=False``
    gives the last output that counts, and ends the mask.

    Examples
    --------
    >>> gru = fastrnn.GRU(2, 3, batch_first=True, return_sequences=False, seed=0)
    >>> model = MaskedSequential(Masking(), gru)
    >>> x = np.array([[[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]])
    >>> bool((model(x) == model(x[:, :2])).all())
    True
    """

    def _run(self, x, states):
        if states is not None:
            raise ValueError(
                f"{type(self).__name__}: a masked model cannot go on from a state "
                "(tbptt)"
            )
        calls = []
        for _, layer, y in self._each(x):
            calls.append((layer, layer.context, layer.training))
            x = y
        self._keep(calls)
        return x, None

    def _outputs(self, inputs):
        if inputs is None:
            return super()._outputs(inputs)
        return list(self._each(*inputs))

    def _each(self, x):
        """Name, layer and output of each layer."""
        mask = None
        for name, layer in self._children.items():
            if isinstance(layer, Masking):
                mask = layer.mask(x)
            inside = layer.layer if isinstance(layer, Bidirectional) else layer
            if mask is not None and isinstance(inside, _Recurrent):
                x = layer(x, mask=mask, zero_output_for_mask=inside.bidirectional)
                mask = mask if inside.return_sequences else None
            else:
                x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
            yield name, layer, x
