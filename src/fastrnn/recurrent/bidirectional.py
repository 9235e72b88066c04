# SPDX-License-Identifier: BSD-3-Clause
"""`Bidirectional`: a recurrent layer that also runs from the last step to the first.

It differs from a layer's own ``merge_mode`` where layers are stacked: the wrapper, like
Keras's, merges what the last layer gives, and a layer merges below, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from fastrnn.nn.context import Context
from fastrnn.nn.deferred import Unbuilt
from fastrnn.nn.describe import describe
from fastrnn.nn.module import Module
from fastrnn.recurrent import merging
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util import checks
from fastrnn.util.typing import Mask
from fastrnn.util.words import SHAPE

MERGE_MODES = ("concat", "sum", "mul", "ave")  # as Keras calls them


class Bidirectional(Module):
    """A recurrent layer in both directions, their outputs merged.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        In one direction. A layer that has parameters already becomes the forward
        direction; the parameters of the other direction are drawn from its generator.
    merge_mode : {"concat", "sum", "mul", "ave"}
        How the two outputs become one: side by side, or their sum, product or mean.

    Attributes
    ----------
    layer : Module
        The layer with ``bidirectional=True``.

    Raises
    ------
    TypeError
        If `layer` is not a recurrent layer.
    ValueError
        If `merge_mode` is unknown, or the layer merges its directions itself. If the
        layer is stacked and has parameters: with two directions the layers above the
        first have wider inputs, which those parameters do not fit.

    Examples
    --------
    >>> layer = Bidirectional(fastrnn.GRU(3, 4, seed=0), merge_mode="sum")
    >>> y = layer(np.ones((7, 2, 3)))
    >>> y.shape
    (7, 2, 4)
    >>> layer.backward(np.ones_like(y)).shape
    (7, 2, 3)
    """

    def __init__(self, layer: Module, merge_mode: str = "concat") -> None:
        who = type(self).__name__
        cls = layer.layer_class if isinstance(layer, Unbuilt) else type(layer)
        if not issubclass(cls, Recurrent):
            raise TypeError(
                f"{who}: layer must be a recurrent layer, got {type(layer).__name__}"
            )
        self.merge_mode = checks.choice(who, "merge_mode", merge_mode, MERGE_MODES)
        is_unbuilt = isinstance(layer, Unbuilt)
        given = layer.layer_arguments if is_unbuilt else vars(layer)
        if given.get("merge_mode", "concat") != "concat":
            raise ValueError(
                f"{who}: layer must not merge its directions itself, got "
                f"merge_mode={given['merge_mode']!r}"
            )
        if is_unbuilt:
            if not given.get("bidirectional", False):
                shape = {n: vars(layer)[n] for n in (SHAPE,) if n in vars(layer)}
                layer = cls(**given | {"bidirectional": True})
                vars(layer).update(shape)
        elif not layer.bidirectional:
            layer = _with_both_directions(layer)
        self.layer: Module = layer

    def compute_mask(self, x: ArrayLike, mask: ArrayLike | None = None) -> Mask:
        """`mask`, of sequences; None after ``return_sequences=False``."""
        return self.layer.compute_mask(x, mask)

    def _mask_arguments(self, mask):
        return self.layer._mask_arguments(mask)

    def forward(
        self,
        x: ArrayLike,
        hx: Any = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        zero_output_for_mask: bool | None = None,
    ) -> Any:
        """Run both directions from a zero state, or from `hx`.

        Parameters
        ----------
        x : array_like
        hx : optional
        lengths, mask : array_like, optional
        zero_output_for_mask : bool, optional
            All as the layer takes them. At a masked step each direction repeats its own
            output, and the repeated outputs are merged.

        Returns
        -------
        ndarray
            The layer's y with its directions merged. Its last axis is half as long as
            the layer's, except for "concat".
        """
        y, _ = self.layer(
            x,
            hx,
            lengths=lengths,
            mask=mask,
            zero_output_for_mask=zero_output_for_mask,
        )
        merged = merging.merge(self.merge_mode, y)
        self._keep((self.layer.context, y, merged.shape))
        return merged

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Any:
        """Accumulate the gradients of both directions and return the input's.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray
            Gradient with respect to x.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        kept, y, shape = context.saved
        dy = checks.float_array(who, "dy", dy, self.dtype)
        checks.same_shape(who, "dy", dy, "y", shape)
        dy = merging.merge_backward(self.merge_mode, y, dy)
        dx, _ = self.layer.backward(dy, context=kept)
        context.release()
        return dx

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return "" if self.merge_mode == "concat" else f"merge_mode={self.merge_mode!r}"


def _with_both_directions(layer):
    """A bidirectional layer whose forward direction has the parameters of `layer`."""
    if layer.num_layers > 1:
        raise ValueError(
            "Bidirectional: a layer with parameters must have num_layers = 1, since "
            f"layers above are wider in both directions, got {layer.num_layers}; give "
            "it input_size None, or bidirectional=True"
        )
    if layer._quantized is not None:
        raise ValueError(
            f"Bidirectional: layer must have whole weights, got {layer!r}; quantize "
            "the bidirectional layer"
        )
    arguments = describe(layer)["arguments"] | {"bidirectional": True}
    seed = layer._dropout_seeds.spawn(1)[0]
    both = type(layer)(**arguments, seed=seed)
    both.trainable = layer.trainable
    for name, value in layer.parameters.items():
        both.parameters[name][...] = value
    return both
