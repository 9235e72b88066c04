# SPDX-License-Identifier: BSD-3-Clause
"""`LiGRU`: layers of light gated recurrent units."""

from fastrnn.recurrent.layer import Recurrent
from fastrnn.util.typing import Array


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
    cell_clip, learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, seed
        As of `GRU`.

    Notes
    -----
    With gates n, z::

        n = max(x_t W_n^T + b_in + h_{t-1} R_n^T + b_hn, 0)
        z = sigmoid(x_t W_z^T + b_iz + h_{t-1} R_z^T + b_hz)
        h_t = z * h_{t-1} + (1 - z) * n

    Nothing bounds n, so that h may grow from step to step where R is large: the paper
    normalises ``x_t W^T`` over the batch against that.

    Parameters: ``weight_ih_l{k} (2 H, I)``, ``weight_hh_l{k} (2 H, H)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k} (2 H,)``, with ``_reverse`` appended for the
    second direction; the order of gates is that of SpeechBrain's LiGRU, whose ``w`` and
    ``u`` are these weights. PyTorch, Keras and ONNX have no such layer: a model that
    holds one is saved in fastrnn's own format alone.

    References
    ----------
    .. [1] M. Ravanelli, P. Brakel, M. Omologo, Y. Bengio, "Light Gated Recurrent Units
       for Speech Recognition", IEEE Transactions on Emerging Topics in Computational
       Intelligence 2(2), 2018, arXiv:1803.10225.

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

    def _candidate(self, gates, ax, h, recur):
        return ax + recur(h)
