# SPDX-License-Identifier: BSD-3-Clause
"""`MinGRU` and `MinLSTM`: layers of cells whose gates see the input alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack, overload

import numpy as np

from fastrnn.nn import schemes
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import LogSpaceByUnits, LogSpaceOptions


class MinGRU(Recurrent[Array]):
    """Minimal GRU: gate and candidate see x alone, and h is a linear scan [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `GRU`; there is one bias, `bias_ih`.
    log_space : bool
        Whether the candidate is ``g(a)``, which is positive: ``a + 0.5`` for a >= 0 and
        ``sigmoid(a)`` below. It is what the authors compute as a scan of logarithms.
    learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, compute, seed
        As of `GRU`.

    Notes
    -----
    With gates z, n::

        z = sigmoid(x_t W_z^T + b_z)
        n = x_t W_n^T + b_n
        h_t = (1 - z) * h_{t-1} + z * n

    Parameters: ``weight_ih_l{k} (2 H, I)`` and ``bias_ih_l{k} (2 H,)``, with
    ``_reverse`` appended for the second direction. There is no ``weight_hh``: the work
    is a fourth of an LSTM's where I = H. In return no gate sees what the state is, and
    one layer cannot count, as parity needs it.

    The initial state is used as it is, zero if none is given. In log space the authors'
    parallel form begins with ``g(h_0)``, which is 0.5 for zero: give that as `hx` to
    have their numbers.

    References
    ----------
    .. [1] L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs All
       We Needed?", arXiv:2410.01201, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> layer = MinGRU(3, 5, seed=0)
    >>> y, h_n = layer(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> list(layer.parameters)
    ['weight_ih_l0', 'bias_ih_l0']
    """

    _cell_functions: ClassVar = ()
    log_space: bool

    @overload
    def __init__(self, units: int, **options: Unpack[LogSpaceByUnits]) -> None: ...
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
        **options: Unpack[LogSpaceOptions],
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
        log_space: bool = False,
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
        self._take(log_space=log_space)
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


class MinLSTM(Recurrent[Array]):
    """Minimal LSTM: two gates that see x alone and are brought to a sum of one [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `GRU`; there is one bias, `bias_ih`.
    log_space : bool
        Whether the candidate is ``g(a)``, which is positive: ``a + 0.5`` for a >= 0 and
        ``sigmoid(a)`` below. It is what the authors compute as a scan of logarithms.
    learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, compute, seed
        As of `GRU`.

    Notes
    -----
    With gates f, i, n::

        f = sigmoid(x_t W_f^T + b_f)
        i = sigmoid(x_t W_i^T + b_i)
        n = x_t W_n^T + b_n
        h_t = f / (f + i) * h_{t-1} + i / (f + i) * n

    Parameters: ``weight_ih_l{k} (3 H, I)`` and ``bias_ih_l{k} (3 H,)``, with
    ``_reverse`` appended for the second direction. There is no ``weight_hh``, and h is
    the whole state: the work is three eighths of an LSTM's where I = H. Of the initial
    state in log space, and of what a layer cannot do, see `MinGRU`.

    References
    ----------
    .. [1] L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs All
       We Needed?", arXiv:2410.01201, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> layer = MinLSTM(3, 5, num_layers=2, seed=0)
    >>> y, h_n = layer(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (2, 2, 5))
    """

    _cell_functions: ClassVar = ()
    log_space: bool

    @overload
    def __init__(self, units: int, **options: Unpack[LogSpaceByUnits]) -> None: ...
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
        **options: Unpack[LogSpaceOptions],
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
        log_space: bool = False,
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
        self._take(log_space=log_space)
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
