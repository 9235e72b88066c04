# SPDX-License-Identifier: BSD-3-Clause
"""`Functional`: layers connected in any way that does not lead in a circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.losses.ending import LOOKED_THROUGH
from fastrnn.nn import masking
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.context import Context
from fastrnn.nn.deferred import Unbuilt, is_built
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.merging import Merging
from fastrnn.nn.module import Module
from fastrnn.recurrent.layer import Recurrent
from fastrnn.train import connections, states_between
from fastrnn.train.model import Model
from fastrnn.util import checks

Names: TypeAlias = str | Sequence[str]


class Functional(Model):
    """Layers between named arrays: several inputs, branches, several outputs.

    Parameters
    ----------
    inputs : str or sequence of str
        Names of the inputs, in the order in which `forward` takes them.
    calls : sequence of (Module, str or sequence of str, str or sequence of str)
        The calls of layers, in order: the layer, the names of what it is given, and
        the names that its output gets. The same layer may be called more than once.
    outputs : str or sequence of str
        Names of the outputs.

    Raises
    ------
    TypeError
        If an argument is not as above.
    ValueError
        If a name is used before it is given, given twice or never used, or if layers
        do not all have the same dtype.

    Notes
    -----
    `Add`, `Concatenate` and the others that merge take as many arrays as are named. A
    recurrent layer may be given initial states after its sequences, and its output may
    have the names of the sequences and of the final states: for each layer and
    direction in turn h, and c of an LSTM, each (N, hidden_size). Masks go along the
    connections as in Keras: see `Masking`.

    `fit` and `evaluate` are for models of one output; several are trained by
    `backward`, with a gradient for each. `predict` gives all of them.

    Examples
    --------
    >>> model = Functional(
    ...     ("prices", "words"),
    ...     [
    ...         (fastrnn.LSTM(None, 8, return_sequences=False, seed=0), "prices", "a"),
    ...         (fastrnn.Embedding(50, 4, seed=1), "words", "vectors"),
    ...         (fastrnn.GlobalAveragePooling1D(), "vectors", "b"),
    ...         (fastrnn.Concatenate(), ("a", "b"), "both"),
    ...         (fastrnn.Linear(None, 1, seed=2), "both", "y"),
    ...     ],
    ...     "y",
    ... )
    >>> prices = np.random.default_rng(0).normal(size=(32, 10, 2))
    >>> words = np.arange(32 * 6).reshape(32, 6) % 50
    >>> model.compile("mse", "adam", lr=0.01)
    >>> history = model.fit((prices, words), prices[:, 0, :1], epochs=3, verbose=0)
    >>> model.predict((prices, words)).shape
    (32, 1)
    """

    _others = ("given_inputs", "given_calls", "given_outputs")
    _not_kept = ("inputs", "calls", "outputs")

    def __init__(
        self,
        inputs: Names,
        calls: Sequence[tuple[Module, Names, Names]],
        outputs: Names,
    ) -> None:
        who = type(self).__name__
        self._inputs = connections.names(who, "inputs", inputs)
        self._outputs_named = connections.names(who, "outputs", outputs)
        self._calls = connections.calls(who, calls)
        connections.check(who, self._inputs, self._calls, self._outputs_named)
        for layer in {id(layer): layer for layer, _, _ in self._calls}.values():
            setattr(self, str(len(self._children)), layer)
        if is_built(self):
            self._leaves()  # raises when dtypes differ

    def _knows(self, name, value):
        return isinstance(value, Module) or super()._knows(name, value)

    # What a saved model has of the constructor's arguments.
    @property
    def given_inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self._inputs

    @property
    def given_calls(self) -> tuple[Any, ...]:
        """The calls: layer, names of what it is given, names of its output."""
        return self._calls

    @property
    def given_outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return self._outputs_named

    @property
    def layers(self) -> tuple[Module, ...]:
        """The layers, each once, a tuple."""
        return tuple(self._children.values())

    # -- forward and backward ---------------------------------------------------------

    def forward(self, *inputs: ArrayLike, mask: Any = None) -> Any:
        """Run all calls in order.

        Parameters
        ----------
        *inputs : array_like
            In the order of their names.
        mask : array_like of bool, or sequence of (array_like of bool or None), optional
            Which steps of the input count, laid out like its first two axes: see
            `Masking`. One for each of several inputs.

        Returns
        -------
        ndarray or tuple of ndarray
            The output, whose mask is ``output_mask``; a tuple of several.

        Raises
        ------
        ValueError, TypeError
            If there are not as many inputs as names, and what the layers raise.
        """
        who = type(self).__name__
        if len(inputs) != len(self._inputs):
            raise ValueError(
                f"{who}: inputs must be {len(self._inputs)}, "
                f"{', '.join(self._inputs)}, got {len(inputs)}"
            )
        found, kept = dict(zip(self._inputs, inputs, strict=True)), []
        masks = self._given_masks(inputs, mask)
        for _ in self._each(found, masks, kept):
            pass
        self._keep((kept, {name: np.shape(y) for name, y in found.items()}))
        several = self._gives_several
        mask = None if several else masks.get(self._outputs_named[0])
        self.__dict__["output_mask"] = mask  # past __setattr__, as `_keep`
        y = tuple(found[name] for name in self._outputs_named)
        return y if several else y[0]

    def _given_masks(self, inputs, mask):
        """The masks of inputs, by the inputs' names."""
        if mask is None:
            return {}
        who, given = type(self).__name__, [mask] if len(inputs) == 1 else mask
        if not isinstance(given, (list, tuple)) or len(given) != len(inputs):
            raise ValueError(
                f"{who}: mask must be a list of a mask or None for each of the "
                f"{len(inputs)} inputs"
            )
        return {
            name: masking.check(who, one, np.shape(x))
            for name, x, one in zip(self._inputs, inputs, given, strict=True)
            if one is not None
        }

    def _each(self, found, masks, kept):
        """Run the calls; after each, its layer and the names of its output."""
        for layer, sources, names in self._calls:
            arrays = [found[name] for name in sources]
            given = [masks.get(name) for name in sources]
            states = ()
            if isinstance(layer, Merging):
                y = layer(*arrays)
                mask = layer.merge_masks(arrays, given)
            else:
                y, mask, states = self._call(layer, arrays, given, len(names))
            ends = [np.shape(state) for state in states]
            kept.append((layer, layer.context, layer.training, ends))
            outputs = y if isinstance(y, tuple) else (y, *states)
            if len(outputs) < len(names):
                raise ValueError(
                    f"{type(self).__name__}: {type(layer).__name__} must give as many "
                    f"arrays as its output has names, {len(names)}, got {len(outputs)}"
                )
            found.update(zip(names, outputs, strict=False))
            masks[names[0]] = mask
            yield layer, names

    def _call(self, layer, arrays, masks, n_names):
        """Output, mask of it and final states of a layer that does not merge."""
        (x, *states), mask = arrays, masks[0]
        if isinstance(layer, Model):
            several = isinstance(layer, Functional) and len(arrays) > 1
            given = masks if several and any(m is not None for m in masks) else mask
            options = {} if given is None else masking.arguments(layer, given)
            y = layer(*arrays, **options)
            return y, None if isinstance(y, tuple) else masking.of_output(layer), ()
        if isinstance(layer, Unbuilt) and (mask is not None or states or n_names > 1):
            layer.build(layer.input_size_of(np.shape(x)))
        options = {} if mask is None else masking.arguments(layer, mask)
        if isinstance(layer, Recurrent) or (
            isinstance(layer, Unbuilt) and issubclass(layer.layer_class, Recurrent)
        ):
            if states:
                states = states_between.joined(type(self).__name__, layer, states)
                y, end = layer(x, states, **options)
            else:
                y, end = layer(x, **options)
            ends = states_between.parts(end) if n_names > 1 else ()
        else:
            y, ends = layer(*arrays, **options), ()
            y = y[0] if isinstance(y, tuple) else y
        if mask is not None or masking.makes_mask(layer):
            mask = layer.compute_mask(x, mask)
        return y, mask, ends

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: Any, *, context: Context | None = None) -> Any:
        """Accumulate all gradients and return those of the inputs.

        Parameters
        ----------
        dy : array_like, or sequence of (array_like or None)
            Gradient of the loss with respect to the output; one for each of several,
            None for zero.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, None, or tuple of these
            The gradient of the input, a tuple of several; None of one that has none,
            such as indices, or that nothing depends on.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, of all layers, or its context has
            been used.
        ValueError, TypeError
            If there are not as many gradients as outputs, and what the layers raise.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        several = self._gives_several
        given = tuple(dy) if several else (dy,)
        if len(given) != len(self._outputs_named):
            raise ValueError(
                f"{who}: dy must have a gradient for each of the "
                f"{len(self._outputs_named)} outputs, got {len(given)}"
            )
        kept, shapes = context.saved
        for layer, inner, was_training, _ in kept:
            if inner is not None:
                layer._context(inner)
            elif not was_training:
                raise RuntimeError(
                    f"{type(layer).__name__}: backward needs a forward in training mode"
                )
        gradients = {}
        for name, one in zip(self._outputs_named, given, strict=True):
            if one is not None:
                one = checks.float_array(who, f"dy of {name}", one, self.dtype)
                checks.same_shape(who, f"dy of {name}", one, name, shapes[name])
                _add(gradients, name, one)
        with Attempt():
            for (_, sources, names), (layer, inner, _, ends) in zip(
                reversed(self._calls), reversed(kept), strict=True
            ):
                of_outputs = [gradients.pop(name, None) for name in names]
                if all(one is None for one in of_outputs):
                    continue
                options = {} if inner is None else {"context": inner}
                if isinstance(layer, Recurrent):
                    of_inputs = _recurrent_backward(layer, of_outputs, ends, options)
                else:
                    of_inputs = _backward(layer, of_outputs, options)
                for name, one in zip(sources, of_inputs, strict=False):
                    if one is not None:
                        _add(gradients, name, one)
            context.release()
        found = tuple(gradients.get(name) for name in self._inputs)
        return found if len(found) > 1 else found[0]

    # -- what `Model` asks ------------------------------------------------------------

    def ends_in(self) -> tuple[Module, ...] | None:
        """The layers that make the only output, one after the other, or None."""
        if self._gives_several:
            return None
        makers = {name: (layer, s) for layer, s, names in self._calls for name in names}
        name, chain = self._outputs_named[0], []
        while name in makers:
            layer, (name, *others) = makers[name]
            if isinstance(layer, Merging) and others:
                return None
            chain.insert(0, layer)
            if not isinstance(layer, LOOKED_THROUGH):
                break
        return tuple(chain)

    @property
    def _gives_several(self):
        return len(self._outputs_named) > 1

    def _leaf_layers(self):
        """First those that take the first input."""
        start = self._inputs[0]
        first = [layer for layer, sources, _ in self._calls if sources[0] == start]
        for layer in (*first, self):
            yield from (module for module in layer.modules() if not module._children)

    def _outputs(self, inputs):
        if inputs is None:
            return [(names[0], layer, None) for layer, _, names in self._calls]
        found = dict(zip(self._inputs, inputs, strict=True))
        return [
            (names[0], layer, found[names[0]])
            for layer, names in self._each(found, {}, [])
        ]

    if not TYPE_CHECKING:  # a checker shall go by `Model.compile`

        def compile(self, *args: Any, **options: Any) -> None:
            """Say what to train for and how: see `Model.compile`.

            Raises
            ------
            ValueError
                If the model has several outputs: these are trained by `backward`.
            ValueError, TypeError
                As for `Model.compile`.
            """
            if self._gives_several:
                raise ValueError(
                    f"{type(self).__name__}.compile: the model must have one output "
                    f"to be trained by fit, got {len(self._outputs_named)}; call "
                    "forward, backward with a gradient for each output, and an "
                    "optimiser's step"
                )
            super().compile(*args, **options)

    def build(self, input_shape: Sequence[Any]) -> Self:
        """Let layers with an input size of None have parameters.

        Parameters
        ----------
        input_shape : tuple of int, or sequence of these
            Of one sample: (T, F), or (T,) for indices of an `Embedding`; one for each
            of several inputs. T may be None.

        Returns
        -------
        Functional
            Itself.
        """
        who = f"{type(self).__name__}.build"
        shapes = [input_shape] if len(self._inputs) == 1 else input_shape
        if not isinstance(shapes, (tuple, list)) or len(shapes) != len(self._inputs):
            raise ValueError(
                f"{who}: input_shape must be a shape for each of the "
                f"{len(self._inputs)} inputs, got {input_shape!r}"
            )
        self._see(
            tuple(
                self._zeros(who, name, shape)
                for name, shape in zip(self._inputs, shapes, strict=True)
            )
        )
        if any(None in shape for shape in shapes):
            self._seen = None  # `summary` must not show a size that was made up
        return self

    def _zeros(self, who, name, shape):
        """A sample of zeros, of integers where an Embedding takes it."""
        if not isinstance(shape, (tuple, list)):
            raise TypeError(
                f"{who}: the shape of {name} must be a tuple of integers, got {shape!r}"
            )
        sizes = [
            1
            if size is None
            else checks.positive_int(who, f"the shape of {name}, axis {i},", size)
            for i, size in enumerate(shape)
        ]
        takers = (layer for layer, sources, _ in self._calls if name in sources)
        indices = any(isinstance(layer, Embedding) for layer in takers)
        return np.zeros((1, *sizes), np.int64 if indices else "f")


def _add(gradients, name, one):
    """Add to what several uses of an array have given it."""
    before = gradients.get(name)
    gradients[name] = one if before is None else before + one


def _recurrent_backward(layer, gradients, ends, options):
    """Gradients of what a recurrent layer was given, from those of what it gave."""
    dy, *of_ends = gradients
    d_state = states_between.joined_gradients(layer, of_ends, ends)
    dx, d_start = layer.backward(dy, d_state, **options)
    return [dx, *states_between.parts(d_start)]


def _backward(layer, gradients, options):
    """Gradients of what another layer was given, from those of what it gave."""
    dx = layer.backward(gradients if gradients[1:] else gradients[0], **options)
    return dx if isinstance(dx, tuple) else (dx,)
