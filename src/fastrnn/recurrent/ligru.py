# SPDX-License-Identifier: BSD-3-Clause
"""`LiGRU`: layers of light gated recurrent units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, overload

import numpy as np

from fastrnn.nn import schemes
from fastrnn.recurrent.arguments import Functions
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import LiGRUByUnits, LiGRUOptions


class LiGRU(Recurrent[Array]):
    """Light GRU: no reset gate, and a ReLU for a candidate [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    activation : str, tuple or dict, optional
        Of the candidate n: a function as `GRU` takes it.
    recurrent_activation : str, tuple or dict, optional
        Of the gate z.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `GRU`.
    zoneout, recurrent_dropout, recurrent_dropout_mode, input_dropout, weight_drop
        As of `GRU`; the mode is "h" or "per_gate".
    layer_norm : bool or str
        What is normalised over its row of both gates, at each step [2]_: True is
        "input", x W^T.
    rms_norm : bool or str
        The same by the root mean square, without a mean [3]_.
    cell_clip, learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, compute, seed
        As of `GRU`.

    Notes
    -----
    With gates n, z::

        n = max(x_t W_n^T + b_in + h_{t-1} R_n^T + b_hn, 0)
        z = sigmoid(x_t W_z^T + b_iz + h_{t-1} R_z^T + b_hz)
        h_t = z * h_{t-1} + (1 - z) * n

    Nothing bounds n, so that h may grow from step to step where R is large. The paper
    normalises ``x_t W^T`` over the batch against that; ``layer_norm=True`` does it over
    the gates of each step, which needs no batch.

    Parameters: ``weight_ih_l{k} (2 H, I)``, ``weight_hh_l{k} (2 H, H)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k} (2 H,)``, and with a norm ``weight_norm_ih_l{k}
    (2 H,)``, with ``_reverse`` appended for the second direction; the order of gates is
    that of SpeechBrain's LiGRU, whose ``w`` and ``u`` are these weights. PyTorch, Keras
    and ONNX have no such layer: a model that holds one is saved in fastrnn's own format
    alone.

    References
    ----------
    .. [1] M. Ravanelli, P. Brakel, M. Omologo, Y. Bengio, "Light Gated Recurrent Units
       for Speech Recognition", IEEE Transactions on Emerging Topics in Computational
       Intelligence 2(2), 2018, arXiv:1803.10225.
    .. [2] J. Ba, J. Kiros, G. Hinton, "Layer Normalization", arXiv:1607.06450, 2016.
    .. [3] B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> ligru = LiGRU(3, 5, seed=0)
    >>> y, h_n = ligru(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> ligru.parameters["weight_hh_l0"].shape
    (10, 5)
    """

    layer_norm: bool | str
    rms_norm: bool | str

    @overload
    def __init__(
        self,
        units: int,
        activation: Functions | None = ...,
        **options: Unpack[LiGRUByUnits],
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
        *,
        activation: Functions | None = ...,
        **options: Unpack[LiGRUOptions],
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
        activation: Functions | None = None,
        recurrent_activation: Functions | None = None,
        cell_clip: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_mode: str = "h",
        input_dropout: float = 0.0,
        weight_drop: float = 0.0,
        layer_norm: bool | str = False,
        rms_norm: bool | str = False,
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
        self._take(layer_norm=layer_norm, rms_norm=rms_norm)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            activation=activation,
            recurrent_activation=recurrent_activation,
            cell_clip=cell_clip,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            recurrent_dropout_mode=recurrent_dropout_mode,
            input_dropout=input_dropout,
            weight_drop=weight_drop,
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
