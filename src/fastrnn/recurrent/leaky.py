# SPDX-License-Identifier: BSD-3-Clause
"""`LeakyRNN`: layers of leaky units, as models of cortical circuits have them."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn import schemes
from fastrnn.recurrent.arguments import Functions
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util import checks
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import LeakyByUnits, LeakyOptions


class LeakyRNN(Recurrent[Array]):
    """Units that follow what drives them, each at its own rate [1]_ [2]_.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    alpha : float or array_like, shape (hidden_size,)
        How much of a unit a step replaces, in [0, 1]: ``dt / tau`` for steps of length
        dt and a time constant tau. With 1 the layer is an `RNN`.
    learn_alpha : bool
        Whether alpha is a parameter, ``alpha_l{k}``, which begins with these numbers.
        The optimiser keeps it in [0, 1].
    sign : array_like of int, shape (hidden_size,), optional
        1 where a unit is excitatory, -1 where it is inhibitory, and 0 where it may be
        either: column j of ``weight_hh``, by which unit j acts upon the others, has no
        number of the other sign (Dale's law). It holds from the start and is restored
        after each step of an optimiser, which sets such numbers to zero.
    noise : float
        Standard deviation of the normal noise that is added to each pre-activation, for
        each unit, sequence and step anew, in training mode. The same `seed` draws the
        same, whatever the number of threads or steps in a call.
    activation : str, tuple or dict, optional
        In place of tanh, a function as `RNN` takes it. A network with signs needs one
        that is not negative, such as "relu" or "softplus".
    num_layers, bias, batch_first, dropout, bidirectional
        As of `RNN`.
    cell_clip, learn_initial_state, clip_state_grad, merge_mode, connection
        As of `RNN`.
    return_sequences, checkpoint_every, go_backwards, stateful, zero_output_for_mask
        As of `RNN`.
    init, dtype, compute, seed
        As of `RNN`.

    Notes
    -----
    With f the activation::

        a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh + noise * N(0, 1)
        h_t = (1 - alpha) * h_{t-1} + alpha * f(a_t)

    Parameters: ``weight_ih_l{k} (H, I)``, ``weight_hh_l{k} (H, H)``, ``bias_ih_l{k}``
    and ``bias_hh_l{k} (H,)``, and ``alpha_l{k} (H,)`` with `learn_alpha`, with
    ``_reverse`` appended for the second direction. PyTorch, Keras and ONNX have no such
    layer: a model that holds one is saved in fastrnn's own format alone.

    `load_state_dict` takes numbers as they are, and who writes to ``parameters`` may
    call `constrain`.

    References
    ----------
    .. [1] H. Jaeger, M. Lukosevicius, D. Popovici, U. Siewert, "Optimization and
       Applications of Echo State Networks with Leaky-Integrator Neurons", Neural
       Networks 20(3), 2007.
    .. [2] H. F. Song, G. R. Yang, X.-J. Wang, "Training Excitatory-Inhibitory Recurrent
       Neural Networks for Cognitive Tasks: A Simple and Flexible Framework", PLoS
       Computational Biology 12(2), 2016.

    Examples
    --------
    >>> import numpy as np
    >>> units = LeakyRNN(3, 5, alpha=0.1, sign=[1, 1, 1, 1, -1], seed=0)
    >>> y, h_n = units(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> bool((units.parameters["weight_hh_l0"][:, 4] <= 0).all())
    True
    """

    _not_kept = ("recurrent_activation",)

    @overload
    def __init__(
        self,
        units: int,
        activation: Functions | None = ...,
        **options: Unpack[LeakyByUnits],
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
        **options: Unpack[LeakyOptions],
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
        alpha: ArrayLike = 0.2,
        learn_alpha: bool = False,
        sign: ArrayLike | None = None,
        noise: float = 0.0,
        activation: Functions | None = None,
        cell_clip: float | None = None,
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
        who = type(self).__name__
        units = checks.positive_int(who, "hidden_size", hidden_size)
        self.alpha: float | tuple[float, ...] = _rates(who, alpha, units)
        self.learn_alpha = checks.flag(who, "learn_alpha", learn_alpha)
        self.sign: tuple[int, ...] | None = _signs(who, sign, units)
        self.noise = checks.real_in(who, "noise", noise, "[0, inf)")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            activation=activation,
            cell_clip=cell_clip,
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
        if self.sign is not None:  # a drawn number keeps its size
            for suffix in self._suffixes:
                R = self._param[f"weight_hh{suffix}"]
                given = np.array(self.sign, R.dtype)
                R[...] = np.where(given == 0, R, given * np.abs(R))

    @property
    def _is_constrained(self):
        return self.learn_alpha or self.sign is not None

    def constrain(self) -> None:
        """Bring the parameters to the nearest ones that `sign` and alpha's range allow.

        Every optimiser does so after each of its steps.
        """
        for suffix in self._suffixes:
            if self.learn_alpha:
                alpha = self._param[f"alpha{suffix}"]
                np.clip(alpha, 0, 1, out=alpha)
            if self.sign is not None:
                R, sign = self._param[f"weight_hh{suffix}"], np.array(self.sign)
                R[R * sign.astype(R.dtype) < 0] = 0

    def _vectors(self):
        return np.broadcast_to(np.array(self.alpha, np.float64), self.hidden_size)

    @property
    def _vectors_are_fixed(self):
        return not self.learn_alpha

    def extra_repr(self) -> str:
        shown = [super().extra_repr()]
        if isinstance(self.alpha, tuple):
            shown.append(f"alpha=<{self.hidden_size} numbers>")
        elif self.alpha != 0.2:
            shown.append(f"alpha={self.alpha!r}")
        if self.learn_alpha:
            shown.append("learn_alpha=True")
        if self.sign is not None:
            counts = [self.sign.count(sign) for sign in (1, -1, 0)]
            shown.append("sign=<{} of 1, {} of -1, {} of 0>".format(*counts))
        return ", ".join(shown)


def _rates(who, alpha, units):
    """`alpha` as a float, or as a tuple with one for each unit."""
    if isinstance(alpha, numbers.Real):
        return checks.real_in(who, "alpha", alpha, "[0, 1]")
    array = checks.float_array(who, "alpha", alpha, np.dtype("float64"))
    checks.shape(who, "alpha", array, ("hidden_size",), (units,))
    if not ((array >= 0) & (array <= 1)).all():
        wrong = array[~((array >= 0) & (array <= 1))][0]
        raise ValueError(f"{who}: alpha must be in [0, 1], got {wrong}")
    return tuple(array.tolist())


def _signs(who, sign, units):
    """`sign` as a tuple of int, or None."""
    if sign is None:
        return None
    array = checks.integer_array(who, "sign", sign)
    checks.shape(who, "sign", array, ("hidden_size",), (units,))
    if not np.isin(array, (-1, 0, 1)).all():
        wrong = array[~np.isin(array, (-1, 0, 1))][0]
        raise ValueError(f"{who}: sign must be made of -1, 0 and 1, got {wrong}")
    return tuple(array.tolist())
