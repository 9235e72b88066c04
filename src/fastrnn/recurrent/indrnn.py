# SPDX-License-Identifier: BSD-3-Clause
"""`IndRNN`: layers of units that each see their own state alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack, overload

import numpy as np

from fastrnn.nn import schemes
from fastrnn.recurrent import table
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util import checks
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import IndRNNByUnits, IndRNNOptions


class IndRNN(Recurrent[Array]):
    """Independently recurrent network: each unit sees its own state alone [1]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    num_layers, bias, batch_first, dropout, bidirectional
        As of `GRU`; there is one bias, `bias_ih`.
    nonlinearity : {"tanh", "relu"}
    time_steps : int, optional
        Steps T over which gradients are to go: ``weight_hh`` begins in U(0, 2^(1/T)),
        and every step of an optimiser is followed by `constrain`, so that a gradient at
        most doubles over them. Default: it begins in U(0, 1), or as `init` says, and
        has no bound.
    learn_initial_state, clip_state_grad, merge_mode, connection
        As of `GRU`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `GRU`.
    init, dtype, compute, seed
        As of `GRU`.

    Notes
    -----
    ``h_t = max(0, x_t W^T + b + u * h_{t-1})``, or tanh in place of the maximum, where
    u, one number for each unit, is ``weight_hh``. Layers are stacked to let units know
    of each other.

    Parameters: ``weight_ih_l{k} (H, I)``, ``bias_ih_l{k} (H,)`` and
    ``weight_hh_l{k} (H,)``, with ``_reverse`` appended for the second direction. How
    much of a gradient is left after n steps is a power, ``u^n``, which `time_steps`
    bounds as the authors do.

    References
    ----------
    .. [1] S. Li, W. Li, C. Cook, C. Zhu, Y. Gao, "Independently Recurrent Neural
       Network (IndRNN): Building A Longer and Deeper RNN", arXiv:1803.04831, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> layer = IndRNN(3, 5, num_layers=2, time_steps=7, seed=0)
    >>> y, h_n = layer(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (2, 2, 5))
    >>> layer.parameters["weight_hh_l1"].shape
    (5,)
    """

    _cell_functions: ClassVar = ()
    time_steps: int | None

    @overload
    def __init__(self, units: int, **options: Unpack[IndRNNByUnits]) -> None: ...
    @overload
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = ...,
        nonlinearity: str = ...,
        bias: bool = ...,
        batch_first: bool = ...,
        dropout: float = ...,
        bidirectional: bool = ...,
        **options: Unpack[IndRNNOptions],
    ) -> None: ...
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "relu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        time_steps: int | None = None,
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
        known = tuple(table.nonlinearities(self._cells))
        checks.choice("IndRNN", "nonlinearity", nonlinearity, known)
        self.nonlinearity = nonlinearity
        if time_steps is not None:
            time_steps = checks.positive_int("IndRNN", "time_steps", time_steps)
            self._vector_range = 0.0, 2 ** (1 / time_steps)
        self._take(time_steps=time_steps)
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

    @property
    def _is_constrained(self):
        return self.time_steps is not None

    def constrain(self) -> None:
        """Bring recurrent weights to the nearest ones that `time_steps` allows.

        Every optimiser does so after each of its steps.
        """
        if self.time_steps is not None:
            bound = 2 ** (1 / self.time_steps)
            for suffix in self._suffixes:
                u = self._param[f"weight_hh{suffix}"]
                np.clip(u, -bound, bound, out=u)

    def extra_repr(self) -> str:
        shown = [super().extra_repr()]
        if self.time_steps is not None:
            shown.append(f"time_steps={self.time_steps}")
        return ", ".join(shown)
