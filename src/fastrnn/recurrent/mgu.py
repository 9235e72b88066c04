# SPDX-License-Identifier: BSD-3-Clause
"""`MGU`: layers of minimal gated units."""

from fastrnn.recurrent.layer import Recurrent
from fastrnn.util.typing import Array


class MGU(Recurrent[Array]):
    """Minimal gated unit: one gate forgets, and decides what the candidate sees [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    activation : str, tuple or dict, optional
        Of n: a function as `GRU` takes it.
    recurrent_activation : str, tuple or dict, optional
        Of the gate f.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `GRU`.
    zoneout, recurrent_dropout, input_dropout, weight_drop
        As of `GRU`.
    recurrent_dropout_mode : {"h", "per_gate"}
        As of `RNN`.
    cell_clip, learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, compute, seed
        As of `GRU`.

    Notes
    -----
    With gates f, n::

        f = sigmoid(x_t W_f^T + b_if + h_{t-1} R_f^T + b_hf)
        n = tanh(x_t W_n^T + b_in + (f * h_{t-1}) R_n^T + b_hn)
        h_t = (1 - f) * h_{t-1} + f * n

    Parameters: ``weight_ih_l{k} (2 H, I)``, ``weight_hh_l{k} (2 H, H)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k} (2 H,)``, with ``_reverse`` appended for the
    second direction. PyTorch, Keras and ONNX have no such layer: a model that holds
    one is saved in fastrnn's own format alone.

    References
    ----------
    .. [1] G.-B. Zhou, J. Wu, C.-L. Zhang, Z.-H. Zhou, "Minimal Gated Unit for Recurrent
       Neural Networks", Int. J. of Automation and Computing 13(3), 2016.

    Examples
    --------
    >>> import numpy as np
    >>> mgu = MGU(3, 5, seed=0)
    >>> y, h_n = mgu(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> mgu.parameters["weight_hh_l0"].shape
    (10, 5)
    """

    def _candidate(self, gates, ax, h, recur):
        return ax + recur(gates["f"] * h)
