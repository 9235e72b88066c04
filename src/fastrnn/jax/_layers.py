# SPDX-License-Identifier: BSD-3-Clause
"""`lstm`, `gru` and `rnn`: recurrent layers as pure functions of arrays of JAX."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from fastrnn.jax import _primitives
from fastrnn.jax._call import WEIGHTS
from fastrnn.native import celltable
from fastrnn.recurrent.pure import Form

Params = Mapping[str, ArrayLike]


def lstm(
    params: Params,
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Run an LSTM over sequences.

    It may be differentiated, and be within `jax.jit`, `jax.vmap`, `jax.checkpoint` and
    `jax.lax.scan`. On the CPU it runs on fastrnn's kernels, forward and backward. Where
    they cannot compute (on other devices, sharded, in forward-mode differentiation, in
    derivatives of derivatives, exported) it runs as `jax.lax.scan`, and a
    RuntimeWarning says so once.

    Parameters
    ----------
    params : dict of str to array
        ``weight_ih`` (4H, I), ``weight_hh`` (4H, H) and, both or neither, ``bias_ih``
        and ``bias_hh`` (4H,): names, layout and order of gates, i f g o, are those of
        `torch.nn.LSTMCell`.
    x : array, shape (T, B, I) or (T, I)
        Time first; one sequence may come without the axis of the batch. float32, or
        float64 where JAX has that enabled; all arrays have the same dtype.
    state : tuple (h, c), each of shape (B, H) or (H,), optional
        The state before the first step; zero if not given.
    lengths : array of int, shape (B,) or (), optional
        How many steps of each sequence count. Those after are not computed: y is zero
        there, and the state that is returned is that of the last step that counts. A
        length beyond 0 to T, of which a traced array cannot complain, counts as 0 or T.

    Returns
    -------
    y : Array, shape (T, B, H) or (T, H)
        h after each step.
    state : tuple (h, c), each of shape (B, H) or (H,)
        After the last step.

    Raises
    ------
    TypeError
        If an argument is not of the kind, or an array not of the dtype, that is named
        above.
    ValueError
        If names, shapes or lengths do not fit.

    References
    ----------
    .. [1] S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", 1997.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> params = {"weight_ih": jnp.ones((20, 3)), "weight_hh": jnp.ones((20, 5))}
    >>> y, (h, c) = lstm(params, jnp.ones((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (2, 5))
    """
    y, h_n, c_n = _run("lstm", "lstm", params, x, state, lengths)
    return y, (h_n, c_n)


def gru(
    params: Params,
    x: ArrayLike,
    state: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    *,
    reset_after: bool = True,
) -> tuple[Array, Array]:
    """Run a GRU over sequences.

    Parameters
    ----------
    params : dict of str to array
        As for `lstm`, with 3H in place of 4H; gates are r z n, as in
        `torch.nn.GRUCell`.
    x, lengths
        As for `lstm`.
    state : array, shape (B, H) or (H,), optional
        h before the first step; zero if not given.
    reset_after : bool
        Whether the reset gate is applied to the product of the recurrent weights with
        h, as in PyTorch and Flax, or before it to h, as in Haiku. `bias_hh` is then
        outside of it.

    Returns
    -------
    y : Array, shape (T, B, H) or (T, H)
        h after each step.
    state : Array, shape (B, H) or (H,)
        h after the last step.

    Raises
    ------
    TypeError, ValueError
        As `lstm` does.

    References
    ----------
    .. [1] K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder
       for Statistical Machine Translation", 2014.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"weight_ih": jnp.ones((15, 3)), "weight_hh": jnp.ones((15, 5))}
    >>> y, h = gru(params, jnp.ones((7, 3)))
    >>> y.shape, h.shape
    ((7, 5), (5,))
    """
    if not isinstance(reset_after, bool):
        raise TypeError(
            f"fastrnn.jax.gru: reset_after must be True or False, got {reset_after!r}"
        )
    return _run("gru", "gru", params, x, state, lengths, reset_before=not reset_after)


def rnn(
    params: Params,
    x: ArrayLike,
    state: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
) -> tuple[Array, Array]:
    """Run a plain recurrent layer over sequences.

    Parameters
    ----------
    params : dict of str to array
        As for `lstm`, with H in place of 4H, as in `torch.nn.RNNCell`.
    x, lengths
        As for `lstm`.
    state : array, shape (B, H) or (H,), optional
        h before the first step; zero if not given.
    nonlinearity : {"tanh", "relu"}

    Returns
    -------
    y, state
        As `gru` does.

    Raises
    ------
    TypeError, ValueError
        As `lstm` does.

    References
    ----------
    .. [1] J. L. Elman, "Finding Structure in Time", 1990.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"weight_ih": jnp.ones((5, 3)), "weight_hh": jnp.ones((5, 5))}
    >>> y, h = rnn(params, jnp.ones((7, 2, 3)), nonlinearity="relu")
    >>> y.shape, h.shape
    ((7, 2, 5), (2, 5))
    """
    if not isinstance(nonlinearity, str) or nonlinearity not in ("tanh", "relu"):
        raise ValueError(
            f"fastrnn.jax.rnn: nonlinearity must be 'tanh' or 'relu', got "
            f"{nonlinearity!r}"
        )
    return _run("rnn", f"rnn_{nonlinearity}", params, x, state, lengths)


def _run(who, cell, params, x, state, lengths, reset_before=False):
    """y, h_n and, for an LSTM, c_n, once all arguments were found to fit."""
    who = f"fastrnn.jax.{who}"
    x = _array(who, "x", x)
    if x.ndim not in (2, 3):
        raise ValueError(f"{who}: x must have shape (T, B, I) or (T, I), got {x.shape}")
    if x.dtype not in ("float32", "float64"):
        raise TypeError(
            f"{who}: x must be float32 or float64, got {x.dtype}; "
            f"x.astype('float32') makes it so"
        )
    weights, H = _weights(who, cell, params, x)
    form = Form(
        cell,
        x.shape[-1],
        H,
        x.dtype.name,
        len(weights) == 4,
        reset_before=reset_before,
    )
    outer = x.shape[1:-1]
    states = _states(who, cell, state, (*outer, H), x)
    mask = None if lengths is None else _mask(who, lengths, x)
    if x.ndim == 2:
        x, states = x[:, None], [part[None] for part in states]
        mask = None if mask is None else mask[:, None]
    c0 = states[1] if len(states) == 2 else None
    y, *ends = _primitives.forward(form, weights, x, states[0], c0, mask, hold=False)
    if not outer:
        y, ends = y[:, 0], [part[0] for part in ends]
    return y, *ends


def _array(who, name, value):
    if not isinstance(value, (Array, np.ndarray)):
        kind = type(value).__name__
        raise TypeError(f"{who}: {name} must be an array, got {kind}")
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{who}: {name} must not be a masked array; fill it first")
        if value.dtype.kind in "OSUMm" or not value.dtype.isnative:
            raise TypeError(
                f"{who}: {name} must be numbers in this machine's byte order, got "
                f"dtype {value.dtype}"
            )
    return jnp.asarray(value)


def _alike(who, name, value, shape, letters, x):
    """An array of x's dtype and of a shape that `letters` explain."""
    a = _array(who, name, value)
    if a.dtype != x.dtype:
        raise TypeError(f"{who}: {name} must be {x.dtype} like x, got {a.dtype}")
    if a.shape != shape:
        raise ValueError(
            f"{who}: {name} must have shape {letters} = {shape}, got {a.shape}"
        )
    return a


def _weights(who, cell, params, x):
    """The weights in the order of `WEIGHTS`, and H."""
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise TypeError(f"{who}: params must be a dict of arrays, got {kind}")
    if set(params) not in (set(WEIGHTS), set(WEIGHTS[:2])):
        raise ValueError(
            f"{who}: params must have weight_ih and weight_hh and, both or neither, "
            f"bias_ih and bias_hh; got {', '.join(map(str, params)) or 'none'}"
        )
    gates, I = len(celltable.cell(cell).gates), x.shape[-1]
    name = "params['weight_hh']"
    weight_hh = _array(who, name, params["weight_hh"])
    of_H = "H" if gates == 1 else f"{gates}H"
    if weight_hh.ndim != 2 or weight_hh.shape[0] != gates * weight_hh.shape[1]:
        raise ValueError(
            f"{who}: {name} must have shape ({of_H}, H), got {weight_hh.shape}"
        )
    H = weight_hh.shape[1]
    if not I * H:
        raise ValueError(f"{who}: I and H must be at least 1, got {I} and {H}")
    shapes = {
        "weight_ih": ((gates * H, I), f"({of_H}, I)"),
        "weight_hh": ((gates * H, H), f"({of_H}, H)"),
        "bias_ih": ((gates * H,), f"({of_H},)"),
        "bias_hh": ((gates * H,), f"({of_H},)"),
    }
    weights = [
        _alike(who, f"params[{name!r}]", params[name], *shapes[name], x)
        for name in WEIGHTS
        if name in params
    ]
    return weights, H


def _states(who, cell, state, shape, x):
    """h and, for an LSTM, c before the first step."""
    names = ("h", "c")[: celltable.cell(cell).n_states]
    if state is None:
        return [jnp.zeros(shape, x.dtype) for _ in names]
    letters = "(B, H)" if len(shape) == 2 else "(H,)"
    if len(names) == 1:
        return [_alike(who, "state", state, shape, letters, x)]
    if not isinstance(state, (tuple, list)):
        raise TypeError(
            f"{who}: state must be a tuple (h, c), got {type(state).__name__}"
        )
    if len(state) != 2:
        raise ValueError(f"{who}: state must be a tuple (h, c), got {len(state)} parts")
    return [
        _alike(who, f"{name} of state", part, shape, letters, x)
        for name, part in zip(names, state, strict=True)
    ]


def _mask(who, lengths, x):
    """Which steps count, (T, B) or (T,), from how many do."""
    T, outer = x.shape[0], x.shape[1:-1]
    if any(isinstance(n, jax.core.Tracer) for n in jax.tree.leaves(lengths)):
        lengths = jnp.asarray(lengths)
    else:
        lengths = _known(who, lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"{who}: lengths must be integers, got {lengths.dtype}")
    if lengths.shape != outer:
        letters = "(B,)" if outer else "()"
        raise ValueError(
            f"{who}: lengths must have shape {letters} = {outer}, got {lengths.shape}"
        )
    if isinstance(lengths, np.ndarray):
        if lengths.size and not (lengths.min() >= 0 and lengths.max() <= T):
            raise ValueError(
                f"{who}: lengths must be from 0 to T = {T}, got {lengths.tolist()}"
            )
        counts = jnp.asarray(lengths.astype(np.int32))
    else:  # within its own type first, which int32 may not hold
        most = min(T, int(jnp.iinfo(lengths.dtype).max))
        bounds = (jnp.asarray(n, lengths.dtype) for n in (0, most))
        counts = jnp.clip(lengths, *bounds).astype("int32")
    steps = jnp.arange(T, dtype="int32").reshape(T, *(1 for _ in outer))
    return steps < (counts[None] if outer else counts)


def _known(who, lengths):
    """Lengths that are no tracers, as an array of NumPy's with all their digits."""
    if not isinstance(lengths, (int, np.integer, list, tuple, np.ndarray, Array)):
        kind = type(lengths).__name__
        raise TypeError(f"{who}: lengths must be an array, got {kind}")
    try:
        found = np.asarray(lengths)
    except ValueError as error:
        raise ValueError(
            f"{who}: lengths must be an array of integers, got {lengths}"
        ) from error
    return found if found.size else found.astype(np.int32)
