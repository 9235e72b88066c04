# SPDX-License-Identifier: BSD-3-Clause
"""Initialisers that fill parameters in place; `fastrnn.init` is their public name.

Above 400 lines for the docstrings: nine of a kind, each with all its arguments.
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn.native import celltable, core
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array, Seed

# Numbers drawn at a time: they come in float64, and a large weight's would need twice
# its memory.
_BLOCK = 1 << 16
# What OpenBLAS needs of a thread's stack for a QR factorisation, with some to spare: it
# ends in threads of 40 KiB and does not in those of 48.
_LAPACK_STACK = 48 << 10


def _fill(array, draw):
    """Fill with what `draw` gives of a shape, in the order of the elements."""
    rows = np.atleast_1d(array)
    each = max(1, _BLOCK // max(1, math.prod(rows.shape[1:])))
    for first in range(0, len(rows), each):
        part = rows[first : first + each]
        part[...] = draw(part.shape)
    return array


def _uniform(who, array, low, high, seed):
    generator = checks.generator(who, seed)

    def draw(shape):
        # Not Generator.uniform: a compiler may fuse its product and sum, rounding once.
        unit = generator.random(shape)
        unit *= high - low
        unit += low
        return unit

    return _fill(array, draw)


def _normal(who, array, mean, std, seed):
    generator = checks.generator(who, seed)
    return _fill(array, lambda shape: generator.normal(mean, std, shape))


def uniform_(
    array: Array, low: float = 0.0, high: float = 1.0, *, seed: Seed = None
) -> Array:
    """Fill with numbers drawn uniformly from [low, high).

    Parameters
    ----------
    array : ndarray of float32 or float64
        Filled in place.
    low, high : float
        Ends of the interval, low <= high.
    seed : int or numpy.random.Generator, optional
        Where the numbers come from; a generator goes on from where it is.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError
        If `array` is not a floating NumPy array, or an end is not a number.
    ValueError
        If `array` is read-only, or low > high.

    Examples
    --------
    >>> uniform_(np.empty(3), -1, 1, seed=0).round(2)
    array([ 0.27, -0.46, -0.92])
    """
    who = "uniform_"
    checks.writable(who, "array", array)
    low = checks.finite(who, "low", low)
    high = checks.finite(who, "high", high)
    if low > high:
        raise ValueError(f"{who}: low must be at most high = {high}, got {low}")
    return _uniform(who, array, low, high, seed)


def normal_(
    array: Array, mean: float = 0.0, std: float = 1.0, *, seed: Seed = None
) -> Array:
    """Fill with numbers drawn from a normal distribution.

    Parameters
    ----------
    array : ndarray of float32 or float64
        Filled in place.
    mean : float
    std : float
        Standard deviation, >= 0.
    seed : int or numpy.random.Generator, optional
        Where the numbers come from.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `uniform_` does.

    Examples
    --------
    >>> normal_(np.empty(3), seed=0).round(2)
    array([ 0.13, -0.13,  0.64])
    """
    who = "normal_"
    checks.writable(who, "array", array)
    mean = checks.finite(who, "mean", mean)
    std = checks.real_in(who, "std", std, "[0, inf)")
    return _normal(who, array, mean, std, seed)


def constant_(array: Array, value: float) -> Array:
    """Fill with one number.

    Parameters
    ----------
    array : ndarray of float32 or float64
        Filled in place.
    value : float

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `uniform_` does.

    Examples
    --------
    >>> constant_(np.empty(2), 0.5)
    array([0.5, 0.5])
    """
    checks.writable("constant_", "array", array)
    array[...] = checks.finite("constant_", "value", value)
    return array


def fan_in_uniform_(array: Array, fan_in: int, *, seed: Seed = None) -> Array:
    """Fill as PyTorch does by default: U(-k, k), k = 1 / sqrt(fan_in).

    Parameters
    ----------
    array : ndarray of float32 or float64
        Weight or bias, filled in place.
    fan_in : int
        ``in_features`` for a linear layer, ``hidden_size`` for a recurrent one.
    seed : int or numpy.random.Generator, optional
        Where the numbers come from.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `uniform_` does, and if `fan_in` is not a positive integer.

    Examples
    --------
    >>> fan_in_uniform_(np.empty(3), 4, seed=0).round(2)
    array([ 0.14, -0.23, -0.46])
    """
    who = "fan_in_uniform_"
    checks.writable(who, "array", array)
    bound = 1 / math.sqrt(checks.positive_int(who, "fan_in", fan_in))
    return _uniform(who, array, -bound, bound, seed)


def _per_gate(who, array, n_gates):
    """The matrices of the gates in `array`, as views."""
    checks.writable(who, "array", array)
    n_gates = checks.positive_int(who, "n_gates", n_gates)
    checks.shape(who, "array", array, ("rows", "columns"), (None, None))
    if len(array) % n_gates:
        raise ValueError(
            f"{who}: array must have a multiple of n_gates = {n_gates} rows, "
            f"got shape {array.shape}"
        )
    rows = len(array) // n_gates
    return [array[g * rows : (g + 1) * rows] for g in range(n_gates)]


def _fans(matrix):
    """Fan-in plus fan-out."""
    return max(sum(matrix.shape), 1)


def xavier_uniform_(
    array: Array, gain: float = 1.0, *, n_gates: int = 1, seed: Seed = None
) -> Array:
    """Fill from U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) [1]_.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (n_gates * fan_out, fan_in)
        Filled in place.
    gain : float
        Factor for the non-linearity that follows: 1 for tanh as in the paper, sqrt(2)
        for ReLU.
    n_gates : int
        Number of stacked matrices. PyTorch's function knows only 1, and then takes all
        gates together for the fan-out.
    seed : int or numpy.random.Generator, optional
        Where the numbers come from.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `uniform_` does, and if `array` is no matrix or does not divide into gates.

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
       feedforward neural networks", 2010.

    Examples
    --------
    >>> xavier_uniform_(np.empty((1, 5)), seed=0).round(2)
    array([[ 0.27, -0.46, -0.92, -0.97,  0.63]])
    """
    who = "xavier_uniform_"
    matrices = _per_gate(who, array, n_gates)
    gain = checks.real_in(who, "gain", gain, "[0, inf)")
    bound = gain * math.sqrt(6 / _fans(matrices[0]))
    return _uniform(who, array, -bound, bound, seed)


def xavier_normal_(
    array: Array, gain: float = 1.0, *, n_gates: int = 1, seed: Seed = None
) -> Array:
    """Fill from a normal distribution, std = gain * sqrt(2 / (fan_in + fan_out)) [1]_.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (n_gates * fan_out, fan_in)
        Filled in place.
    gain, n_gates, seed
        As in `xavier_uniform_`.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `xavier_uniform_` does.

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
       feedforward neural networks", 2010.

    Examples
    --------
    >>> xavier_normal_(np.empty((2, 4)), seed=0).shape
    (2, 4)
    """
    who = "xavier_normal_"
    matrices = _per_gate(who, array, n_gates)
    gain = checks.real_in(who, "gain", gain, "[0, inf)")
    std = gain * math.sqrt(2 / _fans(matrices[0]))
    return _normal(who, array, 0.0, std, seed)


def _check_stack(who):
    """LAPACK, which asks nobody, would end the process where its stack is too small."""
    left = core.stack_left()
    if left < _LAPACK_STACK:
        raise RuntimeError(
            f"{who}: LAPACK needs {_LAPACK_STACK} bytes of stack, and this thread has "
            f"{left} left; threading.stack_size sets what new threads get"
        )


def orthogonal_(
    array: Array, gain: float = 1.0, *, n_gates: int = 1, seed: Seed = None
) -> Array:
    """Fill with a random orthogonal matrix, times `gain` [1]_.

    A matrix with more rows than columns gets orthonormal columns, one with fewer gets
    orthonormal rows.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (n_gates * rows, columns)
        Filled in place.
    gain : float
        Factor of the result; the singular values are all ``abs(gain)``.
    n_gates : int
        Number of stacked matrices, each made orthogonal on its own: 4 for an LSTM's
        ``weight_hh_l0``, 3 for a GRU's.
    seed : int or numpy.random.Generator, optional
        Where the numbers come from.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `uniform_` does, and if `array` is no matrix or does not divide into gates.
    RuntimeError
        If this thread has too little stack left for LAPACK.

    Notes
    -----
    The orthogonal factor of a matrix of normal numbers, with signs chosen so that every
    orthogonal matrix is as likely as another. It comes from LAPACK, so two machines may
    differ in the last bits.

    References
    ----------
    .. [1] A. Saxe, J. McClelland and S. Ganguli, "Exact solutions to the nonlinear
       dynamics of learning in deep linear neural networks", 2014.

    Examples
    --------
    >>> R = orthogonal_(np.empty((8, 2)), n_gates=4, seed=0)
    >>> np.allclose(R[2:4] @ R[2:4].T, np.eye(2))
    True
    """
    who = "orthogonal_"
    matrices = _per_gate(who, array, n_gates)
    gain = checks.finite(who, "gain", gain)
    _check_stack(who)
    rng = checks.generator(who, seed)
    for matrix in matrices:
        rows, columns = matrix.shape
        normal = rng.normal(size=(max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        q *= np.where(np.diagonal(r) < 0, -gain, gain)
        matrix[...] = q if rows >= columns else q.T
    return array


def identity_(array: Array, scale: float = 1.0, *, n_gates: int = 1) -> Array:
    """Fill with the identity matrix, times `scale`.

    For the recurrent weight of an RNN with ReLU [1]_: with zero biases the state is
    then carried unchanged, and so is its gradient. The paper draws the other weights
    from N(0, 0.001) and sets all biases to zero.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (n_gates * rows, columns)
        Filled in place; ones (or `scale`) on the diagonal, zero elsewhere.
    scale : float
        Value on the diagonal. Below 1 the state fades.
    n_gates : int
        Number of stacked matrices, each made an identity.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        As `orthogonal_` does.

    References
    ----------
    .. [1] Q. Le, N. Jaitly and G. Hinton, "A simple way to initialize recurrent
       networks of rectified linear units", 2015.

    Examples
    --------
    >>> identity_(np.empty((2, 2)), 0.5)
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    matrices = _per_gate("identity_", array, n_gates)
    scale = checks.finite("identity_", "scale", scale)
    for matrix in matrices:
        matrix[...] = scale * np.eye(*matrix.shape)
    return array


def _forget_gate(module, n_gates):
    """Which of a layer's gates multiplies c_{t-1}, as an LSTM's f does; None for none.

    A gate f of a cell without c_t, such as a minimal gated unit's, is another thing. A
    layer of the user's own counts as an LSTM where it has as many gates.
    """
    name = getattr(module, "_cell", None)
    cell = celltable.cell(
        name if isinstance(name, str) and name in celltable.CELLS else "lstm"
    )
    if "c" not in cell.states or len(cell.gates) != n_gates:
        return None
    return cell.gates.index("f")


def forget_gate_bias_(model: Module, value: float = 1.0) -> None:
    """Set the bias of the forget gate of every LSTM in a model [1]_.

    Parameters
    ----------
    model : Module
        An LSTM with biases, or a model that contains some.
    value : float
        The forget gate's ``bias_ih``; its ``bias_hh`` becomes 0, so that their sum,
        which is what the gate sees, is `value`.

    Returns
    -------
    Module
        `model` itself.

    Raises
    ------
    TypeError
        If `model` is no module, or `value` no number.
    ValueError
        If the model contains no LSTM with biases.

    References
    ----------
    .. [1] R. Jozefowicz, W. Zaremba and I. Sutskever, "An empirical exploration of
       recurrent network architectures", 2015.

    Examples
    --------
    >>> import fastrnn
    >>> lstm = forget_gate_bias_(fastrnn.LSTM(1, 2, seed=0), 1.0)
    >>> lstm.parameters["bias_hh_l0"][2:4]
    array([0., 0.], dtype=float32)
    """
    who = "forget_gate_bias_"
    if not isinstance(model, Module):
        raise TypeError(f"{who}: model must be a Module, got {type(model).__name__}")
    value = checks.finite(who, "value", value)
    gates = []
    for module in model.modules():
        own = module._param
        for name, weight in own.items():
            if "weight_hh" not in name or weight.ndim != 2:
                continue
            columns = own.get(name.replace("weight_hh", "weight_hr"), weight).shape[1]
            H = columns * getattr(module, "heads", 1)
            gate = _forget_gate(module, len(weight) / H)
            if gate is None:
                continue
            forget = slice(gate * H, (gate + 1) * H)
            for kind, bias in (("bias_ih", value), ("bias_hh", 0.0)):
                array = own.get(name.replace("weight_hh", kind))
                if array is not None:
                    gates.append((array[forget], bias))
    if not gates:
        raise ValueError(
            f"{who}: model must contain an LSTM with biases, got {model!r}"
        )
    for array, bias in gates:
        array[...] = bias
    return model
