# SPDX-License-Identifier: BSD-3-Clause
"""`SLSTM`: layers of LSTMs whose gates are exponential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, overload

import numpy as np

from fastrnn.nn import schemes
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import SLSTMByUnits, SLSTMOptions


class SLSTM(Recurrent[tuple[Array, Array, Array, Array]]):
    """sLSTM, the part of an xLSTM that can track a state: exponential gates [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    forget_gate : {"sigmoid", "exponential"}
        The function of the gate f. The paper allows both; the input gate is always
        exponential.
    heads : int
        The units are in so many heads of equal size, and see the h of their own head
        alone: ``weight_hh_l{k}`` has H / heads columns, the blocks of a block-diagonal
        matrix, and the product takes that part of the work [1]_.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `LSTM`.
    learn_initial_state, clip_state_grad, merge_mode, connection
        As of `LSTM`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `LSTM`.
    init, dtype, compute, seed
        As of `LSTM`.

    Notes
    -----
    With gates i, f, z, o and ``a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh``::

        p = log(sigmoid(a_f)) + m_{t-1}     or, exponential, a_f + m_{t-1}
        m_t = max(p, a_i)                   or a_i where n_{t-1} = 0
        i, f = exp(a_i - m_t), exp(p - m_t)
        z, o = tanh(a_z), sigmoid(a_o)
        c_t = f * c_{t-1} + i * z
        n_t = f * n_{t-1} + i
        h_t = o * c_t / n_t

    The state is a tuple of four arrays, h, c, n and m: the output, the cell, the
    normaliser, and the stabiliser, of which no output depends. Whoever gives an initial
    state must give an n that is positive, or zero where c is zero. A call that is given
    none begins with zero, and so do resets.

    Parameters: ``weight_ih_l{k} (4 H, I)``, ``weight_hh_l{k} (4 H, H)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k} (4 H,)``, with ``_reverse`` appended for the
    second direction. PyTorch, Keras and ONNX have no such layer: a model that holds one
    is saved in fastrnn's own format alone.

    References
    ----------
    .. [1] M. Beck, K. Poeppel, M. Spanring, A. Auer, O. Prudnikova, M. Kopp,
       G. Klambauer, J. Brandstetter, S. Hochreiter, "xLSTM: Extended Long Short-Term
       Memory", arXiv:2405.04517, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> slstm = SLSTM(3, 5, seed=0)
    >>> y, (h_n, c_n, n_n, m_n) = slstm(np.ones((7, 2, 3), "f"))
    >>> y.shape, n_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> dx, d_state = slstm.backward(np.ones_like(y))
    >>> len(d_state)
    4
    """

    forget_gate: str
    heads: int
    _not_kept = ("activation", "recurrent_activation", "cell_clip")

    @overload
    def __init__(
        self,
        units: int,
        **options: Unpack[SLSTMByUnits],
    ) -> None: ...
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
        **options: Unpack[SLSTMOptions],
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
        forget_gate: str = "sigmoid",
        heads: int = 1,
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
        self._take(forget_gate=forget_gate, heads=heads)
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

    def _candidate(self, gates, ax, h, recur):
        return ax + recur(h)
