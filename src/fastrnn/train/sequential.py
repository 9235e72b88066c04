# SPDX-License-Identifier: BSD-3-Clause
"""`Sequential`: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.losses.crf import CRF
from fastrnn.nn import masking
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.context import Context
from fastrnn.nn.deferred import Unbuilt, is_built
from fastrnn.nn.module import Module
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.recurrent.layer import Recurrent
from fastrnn.train.input_shape import Input, given_shape
from fastrnn.train.model import Model
from fastrnn.util.typing import Array


class Sequential(Model):
    """Layers one after the other, named ``"0"``, ``"1"``, ...

    A recurrent layer starts from a zero state and hands on its output ``y`` without its
    final state. Arrays are samples first, as in every `Model`: sequences (N, T, F),
    indices (N, T), whatever a layer's ``batch_first`` says. A `CRF` may be the last
    layer: the model's output is the emissions that it is for, ``compile("crf")`` trains
    it, and `predict` gives its tags.

    Parameters
    ----------
    *layers : Module, or one list of these
        The same layer may come more than once. An `Input` may come first.

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

    _sample_shape = None  # from an `Input`

    def __init__(self, *layers: Module | Input | Sequence[Module | Input]) -> None:
        if len(layers) == 1 and isinstance(layers[0], (list, tuple)):
            layers = tuple(layers[0])
        if layers and isinstance(layers[0], Input):
            self._sample_shape, layers = layers[0].sample_shape, layers[1:]
        self._check_layers(layers)
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        if is_built(self):
            self._leaves()  # raises when dtypes differ
        self._build_if_known()

    def _build_if_known(self):
        """Make all parameters, if words such as ``input_shape`` say how large."""
        if not len(self):
            return
        if self._sample_shape is None:  # once built, the layer has forgotten it
            self._sample_shape = given_shape(self[0])
        if self._sample_shape is not None:
            self.build(self._sample_shape)

    def _knows(self, name, value):
        # Whatever its name, a layer runs after those that are there.
        return isinstance(value, Module) or super()._knows(name, value)

    def _see(self, inputs):
        if len(inputs) != 1:
            raise ValueError(
                f"{type(self).__name__}: x must be one array or list, got a tuple of "
                f"{len(inputs)}; of what pad_sequences gives, (padded, lengths), a "
                "model takes padded"
            )
        return super()._see(inputs)

    def _check_layers(self, layers):
        who = type(self).__name__
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                first = "; an Input comes first" if isinstance(layer, Input) else ""
                raise TypeError(
                    f"{who}: layer {i} must be a Module, got {type(layer).__name__}"
                    f"{first}"
                )
            if isinstance(layer, CRF) and i < len(layers) - 1:
                raise ValueError(
                    f"{who}: a CRF must be the last layer, got it as {i} of "
                    f"{len(layers)}"
                )

    def add(self, layer: Module | Input) -> None:
        """Put a layer after the others, before `compile`.

        Parameters
        ----------
        layer : Module or Input
            An `Input` comes before all layers.

        Raises
        ------
        TypeError, ValueError
            As for the constructor.
        RuntimeError
            If the model was compiled: its optimiser is for the layers that it had.
        """
        if isinstance(layer, Input) and not len(self):
            self._sample_shape = layer.sample_shape
            return
        self._check_layers((*self, layer))
        if self.loss is not None:
            raise RuntimeError(
                f"{type(self).__name__}.add: layers must be added before compile"
            )
        setattr(self, str(len(self)), layer)
        self._build_if_known()

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Module, ...]: ...
    def __getitem__(self, index: int | slice) -> Module | tuple[Module, ...]:
        return tuple(self)[index]

    @property
    def layers(self) -> tuple[Module, ...]:
        """The layers, a tuple."""
        return tuple(self)

    def forward(self, x: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
        """Run all layers in order.

        Parameters
        ----------
        x : array_like
            Input of the first layer.
        mask : array_like of bool, optional
            Which steps of `x` count, laid out like its first two axes: see `Masking`.

        Returns
        -------
        ndarray
            Output of the last layer; its mask is ``output_mask``.

        Raises
        ------
        ValueError, TypeError
            What the layers raise.
        """
        return self._run(x, None, mask)[0]

    if TYPE_CHECKING:
        __call__ = forward

    def forward_from(
        self,
        x: ArrayLike,
        states: list[Any] | None = None,
        *,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, list[Any]]:
        """Run all layers in order, the recurrent ones from given states.

        Parameters
        ----------
        x : array_like
            Input of the first layer.
        states : list, optional
            As returned for the steps before; zero if not given.
        mask : array_like of bool, optional
            As for `forward`.

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
        return self._run(x, [None] * len(self) if states is None else states, mask)

    def _run(self, x, states, mask):
        """All layers; with `states`, from these, and the new ones."""
        who = type(self).__name__
        if mask is not None:
            mask = masking.check(f"{who}: input", mask, np.shape(x)[:2])
        calls, ends = [], []
        for _, layer, y, end, found in self._each(x, states, mask):
            if not isinstance(layer, CRF):
                calls.append((layer, layer.context, layer.training))
                ends.append(end)
            x, mask = y, found
        self._keep(calls)
        self.__dict__["output_mask"] = mask  # past __setattr__, as `_keep`
        return x, ends

    def _each(self, x, states, mask):
        """Name, layer, output, state and mask of the output, layer by layer."""
        ended = None  # which layer gave the last output of sequences alone
        for i, (name, layer) in enumerate(self._children.items()):
            end, options = None, {}
            if isinstance(layer, CRF):  # the loss's part: see `losses.sequences`
                yield name, layer, x, end, mask
                continue
            inner = layer.layer if isinstance(layer, Bidirectional) else layer
            if mask is not None:
                if isinstance(inner, Unbuilt):  # which arguments it takes is not known
                    inner.build(inner.input_size_of(np.shape(x)))
                options = masking.arguments(layer, mask)
            if isinstance(inner, Recurrent):
                if np.ndim(x) == 2:
                    raise ValueError(_not_sequences(i, ended, np.shape(x)))
                ended = ended if inner.return_sequences else i
            if states is None:
                y = layer(x, **options)
            elif isinstance(layer, Sequential):
                y, end = layer.forward_from(x, states[i], **options)
            elif isinstance(inner, Recurrent):
                for way in ("bidirectional", "go_backwards"):
                    if getattr(inner, way):
                        raise ValueError(
                            f"Sequential: layer {i} is {way}, so it cannot go on from "
                            "a state (tbptt)"
                        )
                y, end = layer(x, states[i], **options)
            else:
                y = layer(x, **options)
            knows = "output_mask" in vars(layer)
            if isinstance(layer, Model) and (knows or mask is None):
                mask = masking.of_output(layer)
            elif mask is not None or masking.makes_mask(layer):
                mask = layer.compute_mask(x, mask)
            x = y[0] if isinstance(y, tuple) else y
            yield name, layer, x, end, mask

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Any:
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

    def ends_in(self) -> Module | None:
        """Itself, a chain: see `Module.ends_in`."""
        return self

    def _outputs(self, inputs):
        if inputs is None:
            return super()._outputs(inputs)
        (x,) = inputs
        return [found[:3] for found in self._each(x, None, None)]


def _not_sequences(i, ended, shape):
    """Why recurrent layer `i` cannot run on an array of two axes."""
    if ended is not None:
        return (
            f"Sequential: layer {i} must be given sequences, and layer {ended} gives "
            "their last output alone: it has return_sequences=False"
        )
    return (
        f"Sequential: layer {i} must be given sequences (N, T, features), got "
        f"{shape}; a model takes samples first: one sequence is x[None], and a series "
        "of single numbers is x[:, :, None]"
    )


class MaskedSequential(Sequential):
    """A `Sequential`, which sees to masks itself; older versions wrote this name."""
