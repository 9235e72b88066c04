# SPDX-License-Identifier: BSD-3-Clause
"""`Sequential`: layers one after the other."""

import numpy as np

from fastrnn._attempt import Attempt
from fastrnn._recurrent import _Recurrent
from fastrnn.bidirectional import Bidirectional
from fastrnn.build import is_built
from fastrnn.crf import CRF
from fastrnn.model import Model
from fastrnn.module import Module


class Sequential(Model):
    """Layers one after the other, named ``"0"``, ``"1"``, ...

    A recurrent layer starts from a zero state and hands on its output ``y`` without its
    final state. Called itself, the model takes what its first layer takes; `fit`,
    `evaluate` and `predict` (see `Model`) take samples first. A `CRF` may be the last
    layer: the model's output is the emissions that it is for, ``compile("crf")`` trains
    it, and `predict` gives its tags.

    Parameters
    ----------
    *layers : Module
        The same layer may come more than once.

    Raises
    ------
    TypeError
        If one of them is not a Module.
    ValueError
        If they do not all have the same dtype.

    Examples
    --------
    >>> from fastrnn import Dropout, Linear
    >>> model = Sequential(Linear(3, 4, seed=0), Dropout(0.1, seed=1), Linear(4, 2))
    >>> model(np.ones((5, 3))).shape
    (5, 2)
    >>> model.backward(np.ones((5, 2))).shape
    (5, 3)

    With an input size of None a layer finds it out when it is first called:

    >>> lstm = fastrnn.LSTM(None, 8, return_sequences=False, seed=0)
    >>> model = Sequential(lstm, Linear(None, 1, seed=1))
    >>> model.compile("mse", "adam", lr=0.01)
    >>> x = np.random.default_rng(2).normal(size=(64, 10, 3))  # (N, T, F)
    >>> history = model.fit(x, x[:, -1, :1], epochs=5, seed=3, verbose=0)
    >>> history.history["loss"][-1] < history.history["loss"][0]
    True
    >>> model.predict(x).shape
    (64, 1)
    """

    def __init__(self, *layers):
        self._check_layers(layers)
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        if is_built(self):
            self._leaves()  # raises when dtypes differ

    def _check_layers(self, layers):
        who = type(self).__name__
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                hint = f"; write {who}(*layers)" if isinstance(layer, list) else ""
                raise TypeError(
                    f"{who}: layer {i} must be a Module, got {type(layer).__name__}"
                    f"{hint}"
                )
            if isinstance(layer, CRF) and i < len(layers) - 1:
                raise ValueError(
                    f"{who}: a CRF must be the last layer, got it as {i} of "
                    f"{len(layers)}"
                )

    def add(self, layer):
        """Put a layer after the others, before `compile`.

        Parameters
        ----------
        layer : Module

        Raises
        ------
        TypeError, ValueError
            As for the constructor.
        RuntimeError
            If the model was compiled: its optimiser is for the layers that it had.
        """
        self._check_layers((*self, layer))
        if self.loss is not None:
            raise RuntimeError(
                f"{type(self).__name__}.add: layers must be added before compile"
            )
        setattr(self, str(len(self)), layer)

    def __len__(self):
        return len(self._children)

    def __iter__(self):
        return iter(self._children.values())

    def __getitem__(self, index):
        return tuple(self)[index]

    @property
    def layers(self):
        """The layers, a tuple."""
        return tuple(self)

    def forward(self, x):
        """Run all layers in order.

        Parameters
        ----------
        x : array_like
            Input of the first layer.

        Returns
        -------
        ndarray
            Output of the last layer.

        Raises
        ------
        ValueError, TypeError
            What the layers raise.
        """
        return self._run(x, None)[0]

    def forward_from(self, x, states=None):
        """Run all layers in order, the recurrent ones from given states.

        Parameters
        ----------
        x : array_like
            Input of the first layer.
        states : list, optional
            As returned for the steps before; zero if not given.

        Returns
        -------
        y : ndarray
            Output of the last layer.
        states : list
            Of each layer; None for one that has none.

        Raises
        ------
        ValueError
            If a layer runs from the last step to the first, which has no state to go
            on from.
        """
        return self._run(x, [None] * len(self) if states is None else states)

    def _run(self, x, states):
        """All layers; with `states`, from these, and the new ones."""
        calls, ends = [], []
        ended = None  # which layer gave the last output of sequences alone
        for i, layer in enumerate(self):
            if isinstance(layer, CRF):
                continue  # the loss's part: see objectives.ConditionalRandomField
            inner = layer.layer if isinstance(layer, Bidirectional) else layer
            if isinstance(inner, _Recurrent):
                if ended is not None and np.ndim(x) == 2:
                    raise ValueError(
                        f"Sequential: layer {i} must be given sequences, and layer "
                        f"{ended} gives their last output alone: it has "
                        "return_sequences=False"
                    )
                ended = ended if inner.return_sequences else i
            if states is None:
                y, end = layer(x), None
            elif isinstance(layer, Sequential):
                y, end = layer.forward_from(x, states[i])
            elif isinstance(layer, _Recurrent):
                if layer.bidirectional:
                    raise ValueError(
                        f"Sequential: layer {i} is bidirectional, so it cannot go on "
                        "from a state (tbptt)"
                    )
                y, end = layer(x, states[i])
            else:
                y, end = layer(x), None
            x = y[0] if isinstance(y, tuple) else y
            calls.append((layer, layer.context, layer.training))
            ends.append(end)
        self._keep(calls)
        return x, ends

    def backward(self, dy, *, context=None):
        """Accumulate all gradients and return the input's.

        Parameters
        ----------
        dy : array_like
            Gradient of the loss with respect to the last layer's output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray or None
            Gradient of the first layer's input; None if that has none, as an
            `Embedding`'s.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, of all layers, or its context has
            been used.
        ValueError, TypeError
            What the layers raise.
        """
        context = self._context(context)
        for layer, kept, was_training in context.saved:
            if kept is not None:
                layer._context(kept)
            elif not was_training:
                raise RuntimeError(
                    f"{type(layer).__name__}: backward needs a forward in training mode"
                )
        with Attempt():
            for layer, kept, _ in reversed(context.saved):
                dx = layer.backward(dy, **({} if kept is None else {"context": kept}))
                dy = dx[0] if isinstance(dx, tuple) else dx
            context.release()
        return dy

    def _outputs(self, inputs):
        if inputs is None:
            return super()._outputs(inputs)
        (x,), found = inputs, []
        for name, layer in self._children.items():
            y = x if isinstance(layer, CRF) else layer(x)
            x = y[0] if isinstance(y, tuple) else y
            found.append((name, layer, x))
        return found
