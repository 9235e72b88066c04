# SPDX-License-Identifier: BSD-3-Clause
"""`SRU`: layers of simple recurrent units."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack, overload

import numpy as np

from fastrnn.nn import schemes
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util import checks
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import SRUByUnits, SRUOptions


class SRU(Recurrent[tuple[Array, Array]]):
    """Simple recurrent unit: a forget gate, and a highway around the cell [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `GRU`; there is one bias, `bias_ih`.
    rescale : bool
        Whether what goes around the cell is multiplied by alpha =
        ``sqrt(1 + 2 exp(highway_bias))``, which keeps the variance of h that of x in a
        layer that begins, for deep stacks; False has alpha 1.
    highway_bias : float
        First value of the bias of r. Less than zero lets more of x pass by the cell.
    learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, compute, seed
        As of `GRU`.

    Notes
    -----
    With gates f, r, n, x::

        f = sigmoid(x_t W_f^T + b_f + v_f * c_{t-1})
        r = sigmoid(x_t W_r^T + b_r + v_r * c_{t-1})
        c_t = f * c_{t-1} + (1 - f) * (x_t W_n^T)
        h_t = r * c_t + (1 - r) * alpha * s_t

    where s_t is x_t itself in cells that have H inputs, and ``x_t W_x^T`` in others.
    Parameters: ``weight_ih_l{k} (3 H, I)``, or (4 H, I) with W_x, ``bias_ih_l{k}
    (2 H,)`` and ``weight_c_l{k} (2 H,)``, v_f and v_r, with ``_reverse`` appended for
    the second direction. The state is a pair (h, c), as an LSTM's; no step reads the h
    of the step before, so that gradients with respect to h0 are zero.

    References
    ----------
    .. [1] T. Lei, Y. Zhang, S. I. Wang, H. Dai, Y. Artzi, "Simple Recurrent Units for
       Highly Parallelizable Recurrence", EMNLP 2018, arXiv:1709.02755.

    Examples
    --------
    >>> import numpy as np
    >>> layer = SRU(3, 5, num_layers=2, seed=0)
    >>> y, (h_n, c_n) = layer(np.ones((7, 2, 3), "f"))
    >>> y.shape, c_n.shape
    ((7, 2, 5), (2, 2, 5))
    >>> [layer.parameters[name].shape for name in ("weight_ih_l0", "weight_ih_l1")]
    [(20, 3), (15, 5)]
    """

    _cell_functions: ClassVar = ()
    rescale: bool
    highway_bias: float

    @overload
    def __init__(self, units: int, **options: Unpack[SRUByUnits]) -> None: ...
    @overload
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = ...,
        bias: bool = ...,
        batch_first: bool = ...,
        dropout: float = ...,
        bidirectional: bool = ...,
        **options: Unpack[SRUOptions],
    ) -> None: ...
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        rescale: bool = False,
        highway_bias: float = 0.0,
        learn_initial_state: bool = False,
        clip_state_grad: float | tuple[str, float] | None = None,
        merge_mode: str = "concat",
        connection: str | None = None,
        return_sequences: bool = True,
        checkpoint_every: int | None = None,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        init: schemes.Init = schemes.DEFAULT,
        dtype: str = "float32",
        compute: str | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        highway_bias = checks.real_in(
            "SRU", "highway_bias", highway_bias, "[-100, 100]"
        )
        self._take(rescale=rescale, highway_bias=highway_bias)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            learn_initial_state=learn_initial_state,
            clip_state_grad=clip_state_grad,
            merge_mode=merge_mode,
            connection=connection,
            return_sequences=return_sequences,
            checkpoint_every=checkpoint_every,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            init=init,
            dtype=dtype,
            compute=compute,
            seed=seed,
        )
